output "pools" {
  description = "Each pool: its agent type (null for intent and callbacks), the agent type that it falls back to, its Kubernetes name, and its two queues."
  value = {
    for pool, it in local.pools : pool => {
      agent           = it.agent
      fallback        = it.fallback
      queues          = local.queues[pool]
      kubernetes_name = replace(replace(pool, ".", "-"), "_", "-")
    }
  }
}

output "queue_names" {
  description = "The name in SQS of each queue of tasks/keys."
  value       = { for queue in local.every_queue : queue => "${var.name}-${replace(queue, ".", "-")}" }
}

output "queues" {
  description = "The queues that belong to no pool, by use: dead_letters, quarantine, uploads, events."
  value       = { for use in ["dead_letters", "quarantine", "uploads", "events"] : use => local.contract.queues[use] }
}

output "prefixes" {
  description = "The prefixes of objects, by use."
  value       = local.contract.objects
}

output "pool_names" {
  description = "The intent pool, that of callbacks, and the prefix of agent pools."
  value       = local.contract.pools
}

output "components" {
  description = "Those that write audit records beside the pools: door, sweeper, sealer."
  value       = local.contract.components
}

output "visibility_seconds" {
  description = "queue.visibility_seconds."
  value       = local.queue.visibility_seconds
}

output "attempts" {
  description = "queue.attempts."
  value       = local.queue.attempts
}

output "retention_days" {
  description = "auditing.retention_days."
  value       = local.auditing.retention_days
}

output "seal_seconds" {
  description = "auditing.seal_seconds."
  value       = local.auditing.seal_seconds
}

output "grant_days" {
  description = "grants.max_age_days: an older message has no valid grant."
  value       = local.grants.max_age_days
}
