# What workers and functions are told beside pipeline.yaml: SLUICE_<KEY>__<KEY>, as tasks/settings_load.py reads them. Secrets
# are named here, not given: who runs the process reads them with its own role.

locals {
  secret_url = "secretsmanager://${var.region}/"

  common_environment = {
    SLUICE_REGION                   = var.region
    SLUICE_DATA_BUCKET              = module.storage.bucket
    SLUICE_AUDIT_BUCKET             = module.audit.bucket
    SLUICE_REDIS_URL                = "${local.secret_url}${module.state.url_secret.name}"
    SLUICE_REDIS_DURABLE            = "true"
    SLUICE_BROKER_URL               = "sqs://sqs.${var.region}.amazonaws.com/${data.aws_caller_identity.current.account_id}/${var.name}"
    SLUICE_SIGNING__RING            = "${local.secret_url}${module.keys.ring_secret.name}"
    SLUICE_GRANTS__AUDIENCE         = var.name
    SLUICE_CALLBACKS__SECRETS       = jsonencode(["${local.secret_url}${module.keys.callback_secret.name}"])
    SLUICE_AUDITING__IMMUTABLE      = "true"
    SLUICE_AUDITING__ALERTS__TOPIC  = module.alerts.topic_arn
    SLUICE_AUDITING__RETENTION_DAYS = tostring(module.settings.retention_days)
  }

  signed_by = { for signer, secret in module.keys.signing_secrets : signer => {
    SLUICE_SIGNING__KEYS = jsonencode(["${local.secret_url}${secret.name}"])
  } }
  signed_in_kms = {
    SLUICE_SIGNING__KEYS = jsonencode(["kms://${var.region}/${module.keys.sealing_key_id}?name=${module.settings.components.sealer}"])
  }

  # What an intake cannot take lies with its reason where SQS puts what it delivered there too often.
  events_environment = {
    SLUICE_EVENTS__DEAD_LETTERS = module.queues.urls[module.settings.queues.quarantine]
  }

  environment = {
    common = local.common_environment
    pools  = { for pool in keys(module.settings.pools) : pool => merge(local.common_environment, local.signed_by[pool]) }
    functions = {
      s3    = merge(local.common_environment, local.signed_by[module.settings.components.door])
      sqs   = merge(local.common_environment, local.signed_by[module.settings.components.door], local.events_environment)
      http  = merge(local.common_environment, local.signed_by[module.settings.components.door])
      sweep = merge(local.common_environment, local.signed_by[module.settings.components.sweeper])
      seal  = merge(local.common_environment, local.signed_in_kms)
    }
  }
}
