# What the manifests (`sluice scale render --terraform -`) and operators read. docs/terraform.md documents the shape.

output "name" {
  description = "Name of the deployment."
  value       = var.name
}

output "region" {
  description = "AWS region."
  value       = data.aws_region.current.region

  precondition {
    condition     = data.aws_region.current.region == var.region
    error_message = "region: the provider works in ${data.aws_region.current.region}. Configure it for ${var.region}."
  }
}

output "namespace" {
  description = "Kubernetes namespace of the workers."
  value       = var.namespace
}

output "pools" {
  description = "Each pool: its Kubernetes name, service account, role, and its queue of each priority."
  value = {
    for pool, it in module.settings.pools : pool => {
      kubernetes_name = it.kubernetes_name
      service_account = module.identity.service_accounts[pool]
      role_arn        = try(module.identity.pool_role_arns[pool], null)
      queues = { for priority, queue in it.queues : priority => {
        name = module.queues.names[queue]
        url  = module.queues.urls[queue]
        arn  = module.queues.arns[queue]
      } }
    }
  }
}

output "queues" {
  description = "The queues that belong to no pool, by use: dead_letters, quarantine, uploads, events."
  value = { for use, queue in module.settings.queues : use => {
    name = module.queues.names[queue]
    url  = module.queues.urls[queue]
    arn  = module.queues.arns[queue]
  } }
}

output "buckets" {
  description = "Names of the buckets: data, audit."
  value       = { data = module.storage.bucket, audit = module.audit.bucket }
}

output "functions" {
  description = "Name and role of each function."
  value = { for function, name in module.doors.function_names : function => {
    name     = name
    role_arn = module.identity.function_role_arns[function]
  } }
}

output "registry" {
  description = "URL of the repository of each image."
  value       = module.registry.urls
}

output "redis" {
  description = "The state store: host, and the secret that holds its URL."
  value       = { host = module.state.host, url_secret = module.state.url_secret }
}

output "secrets" {
  description = "ARN and name of the secrets that you fill: signing key sets, ring, commitment key, secret of callbacks, model key."
  value = {
    signing    = module.keys.signing_secrets
    ring       = module.keys.ring_secret
    commitment = module.keys.commitment_secret
    callbacks  = module.keys.callback_secret
    model      = module.keys.model_secret
  }
}

output "sealing_key" {
  description = "Id of the KMS key that signs checkpoints, and its address for signing.keys."
  value = {
    id  = module.keys.sealing_key_id
    url = "kms://${var.region}/${module.keys.sealing_key_id}?name=${module.settings.components.sealer}"
  }
}

output "cluster" {
  description = "The cluster: name, endpoint, certificate authority; null where there is none."
  # Output by output: a reference to the module as a whole would make the helm provider wait for its own charts.
  value = var.with_cluster ? {
    name                  = module.cluster[0].name
    endpoint              = module.cluster[0].endpoint
    certificate_authority = module.cluster[0].certificate_authority
  } : null
}

output "keda" {
  description = "Whom KEDA's operator runs as: namespace, service account, role."
  value = var.with_cluster ? merge(module.cluster[0].keda_service_account, {
    role_arn = module.identity.keda_role_arn
  }) : null
}

output "http" {
  description = "The HTTP door: its URL, and the usage plan that API keys are added to."
  value       = { url = module.doors.url, usage_plan_id = module.doors.usage_plan_id }
}

output "alerts" {
  description = "ARN of the topic that alerts and alarms go to."
  value       = { topic_arn = module.alerts.topic_arn }
}

output "environment" {
  description = "Environment variables over pipeline.yaml: common to all, of each pool, of each function."
  value       = local.environment
}
