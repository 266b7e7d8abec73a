# What Terraform needs of pipeline.yaml, with the defaults of tasks/settings. contract.json holds those defaults and every
# name of tasks/keys: `make terraform-schema` writes it from the Python code, and a test holds it against that.
locals {
  contract = jsondecode(file("${path.module}/contract.json"))
  defaults = local.contract.defaults
  file     = yamldecode(file(var.pipeline_file))

  queue    = merge(local.defaults.queue, try(local.file.queue, {}))
  auditing = merge(local.defaults.auditing, try(local.file.auditing, {}))
  grants   = merge(local.defaults.grants, try(local.file.grants, {}))

  # As in Settings: an agent type that is left out is added with its defaults.
  listed = { for agent in try(local.file.agents, []) : agent.type => agent }
  agents = {
    for type in distinct(concat(keys(local.listed), keys(local.defaults.agents))) :
    type => merge(local.defaults.agent, try(local.listed[type], local.defaults.agents[type]))
  }

  agent_pools = { for type in keys(local.agents) : "${local.contract.pools.agent_prefix}${type}" => type }
  pools = merge(
    { (local.contract.pools.intent) = { base = local.contract.queues.intent, agent = null, fallback = null } },
    { (local.contract.pools.callbacks) = { base = local.contract.pools.callbacks, agent = null, fallback = null } },
    { for pool, type in local.agent_pools : pool => { base = pool, agent = type, fallback = local.agents[type].fallback } },
  )

  queues = { for pool, it in local.pools : pool => { normal = it.base, high = "${it.base}${local.contract.queues.high_suffix}" } }
  every_queue = concat(
    flatten([for it in local.queues : [it.normal, it.high]]),
    [for use in ["dead_letters", "quarantine", "uploads", "events"] : local.contract.queues[use]],
  )
}
