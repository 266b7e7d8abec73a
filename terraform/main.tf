# Sluice on AWS. Each part of the picture in docs/architecture.md is a module of that name; this file connects them.

data "aws_caller_identity" "current" {}
data "aws_region" "current" {}

# The network of a given cluster, where none is named.
data "aws_eks_cluster" "given" {
  count = var.cluster != null && var.network == null ? 1 : 0
  name  = var.cluster
}

locals {
  given_network = var.network != null ? var.network : one([
    for cluster in data.aws_eks_cluster.given : {
      vpc_id     = cluster.vpc_config[0].vpc_id
      subnet_ids = tolist(cluster.vpc_config[0].subnet_ids)
    }
  ])
  intakes = { s3 = module.settings.queues.uploads, sqs = module.settings.queues.events }
}

# What pipeline.yaml says, with the defaults and names of the Python code.
module "settings" {
  source = "./modules/settings"

  name          = var.name
  pipeline_file = coalesce(var.pipeline_file, "${path.module}/../pipeline.yaml")
}

module "keys" {
  source = "./modules/keys"

  name    = var.name
  signers = setunion(keys(module.settings.pools), [module.settings.components.door, module.settings.components.sweeper])
}

module "network" {
  source = "./modules/network"

  name                = var.name
  existing            = local.given_network
  cidr                = var.new_network.cidr
  zone_count          = var.new_network.zone_count
  nat                 = var.new_network.nat
  interface_endpoints = var.new_network.interface_endpoints
  key_arn             = module.keys.data_key_arn
  log_retention_days  = var.log_retention_days
}

module "queues" {
  source = "./modules/queues"

  names              = module.settings.queue_names
  pools              = { for pool, it in module.settings.pools : pool => it.queues }
  dead_letters       = module.settings.queues.dead_letters
  quarantine         = module.settings.queues.quarantine
  intakes            = { for function, queue in local.intakes : queue => var.functions[function].timeout }
  uploads            = module.settings.queues.uploads
  visibility_seconds = module.settings.visibility_seconds
  attempts           = module.settings.attempts
  retention_days     = min(14, module.settings.grant_days)
  data_bucket_arn    = module.storage.bucket_arn
  key_arn            = module.keys.data_key_arn
}

module "storage" {
  source = "./modules/storage"

  name                 = var.name
  key_arn              = module.keys.data_key_arn
  bodies_prefix        = module.settings.prefixes.bodies
  bodies_days          = var.bodies_days
  uploads_prefix       = module.settings.prefixes.uploads
  uploads_queue_arn    = module.queues.uploads_arn
  destroy_with_content = var.destroy_with_content
}

module "audit" {
  source = "./modules/audit"

  name            = var.name
  retention_days  = module.settings.retention_days
  segments_prefix = module.settings.prefixes.audit
}

module "state" {
  source = "./modules/state"

  name         = var.name
  vpc_id       = module.network.vpc_id
  subnet_ids   = module.network.subnet_ids
  node_type    = var.state.node_type
  replicas     = var.state.replicas
  auth_version = var.state.auth_version
  key_arn      = module.keys.data_key_arn
  client_security_group_ids = merge(
    { doors = module.network.doors_security_group_id },
    var.with_cluster ? { workers = module.cluster[0].security_group_id } : {},
  )
}

module "registry" {
  source = "./modules/registry"

  name                 = var.name
  images               = var.images
  keep                 = var.images_kept
  key_arn              = module.keys.data_key_arn
  destroy_with_content = var.destroy_with_content
}

module "cluster" {
  source = "./modules/cluster"
  count  = var.with_cluster ? 1 : 0

  name               = var.name
  existing           = var.cluster
  kubernetes_version = var.new_cluster.kubernetes_version
  subnet_ids         = module.network.subnet_ids
  admin_cidrs        = var.new_cluster.admin_cidrs
  node_pools         = var.new_cluster.node_pools
  install_keda       = var.keda.install
  keda_version       = var.keda.version
  key_arn            = module.keys.data_key_arn
  log_retention_days = var.log_retention_days
}

module "identity" {
  source = "./modules/identity"

  name                 = var.name
  cluster              = var.with_cluster ? { name = module.cluster[0].name, arn = module.cluster[0].arn } : null
  namespace            = var.namespace
  keda_service_account = var.with_cluster ? module.cluster[0].keda_service_account : { namespace = "", service_account = "" }
  associate_keda       = var.keda.install
  pools                = module.settings.pools
  pool_names           = module.settings.pool_names
  queues               = module.settings.queues
  queue_arns           = module.queues.arns
  prefixes             = module.settings.prefixes
  data_bucket_arn      = module.storage.bucket_arn
  audit_bucket_arn     = module.audit.bucket_arn
  key_arns             = { data = module.keys.data_key_arn, audit = module.audit.key_arn, sealing = module.keys.sealing_key_arn }
  signing_secret_arns  = { for signer, secret in module.keys.signing_secrets : signer => secret.arn }
  shared_secret_arns   = [module.keys.ring_secret.arn, module.state.url_secret.arn, module.keys.commitment_secret.arn]
  callback_secret_arn  = module.keys.callback_secret.arn
  model_secret_arn     = module.keys.model_secret.arn
  topic_arn            = module.alerts.topic_arn
  log_group_arns       = module.doors.log_group_arns
}

module "doors" {
  source = "./modules/doors"

  name               = var.name
  zip                = coalesce(var.handlers.zip, "${path.module}/../build/handlers.zip")
  architecture       = var.handlers.architecture
  functions          = var.functions
  role_arns          = module.identity.function_role_arns
  environment        = local.environment.functions
  intake_arns        = { for function, queue in local.intakes : function => module.queues.arns[queue] }
  intake_concurrency = var.intake_concurrency
  seal_seconds       = module.settings.seal_seconds
  subnet_ids         = module.network.subnet_ids
  security_group_id  = module.network.doors_security_group_id
  key_arn            = module.keys.data_key_arn
  log_retention_days = var.log_retention_days
  http               = var.http
}

module "alerts" {
  source = "./modules/alerts"

  name            = var.name
  key_arn         = module.keys.data_key_arn
  emails          = var.alert_emails
  terminal_queues = [for use in ["dead_letters", "quarantine"] : module.settings.queue_names[module.settings.queues[use]]]
  work_queues = [
    for queue, name in module.settings.queue_names : name
    if !contains([module.settings.queues.dead_letters, module.settings.queues.quarantine], queue)
  ]
  oldest_seconds  = var.oldest_seconds
  seal_seconds    = module.settings.seal_seconds
  function_names  = module.doors.function_names
  log_group_names = module.doors.log_group_names
  api             = { name = module.doors.api_name, stage = module.doors.stage_name }
  state_nodes     = module.state.node_ids
}
