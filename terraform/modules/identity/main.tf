# One role for each pool and each function, with what it needs and no more. pools.tf and functions.tf say what each may do;
# tests/unit/terraform/test_identity.py holds every one against a table of calls.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  objects = { for use, prefix in var.prefixes : use => "${var.data_bucket_arn}/${prefix}*" }
  records = { for use, prefix in var.prefixes : use => "${var.audit_bucket_arn}/${prefix}*" }
  arns    = { for pool, it in var.pools : pool => [var.queue_arns[it.queues.normal], var.queue_arns[it.queues.high]] }

  requests  = local.arns[var.pool_names.intent]
  dead_ends = [var.queue_arns[var.queues.dead_letters], var.queue_arns[var.queues.quarantine]]
}

# What every process does: write its audit records, read the public ring and where the state store is, raise alerts.
data "aws_iam_policy_document" "common" {
  statement {
    sid       = "WriteAuditRecords"
    actions   = ["s3:PutObject"]
    resources = [local.records.audit]
  }

  statement {
    sid       = "SeeThatTheAuditIsLocked"
    actions   = ["s3:GetBucketObjectLockConfiguration"]
    resources = [var.audit_bucket_arn]
  }

  # Without it S3 answers 403 where an object is missing, and not 404.
  statement {
    sid       = "TellMissingFromForbidden"
    actions   = ["s3:ListBucket"]
    resources = [var.data_bucket_arn]
  }

  statement {
    sid       = "EncryptAndDecryptData"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [var.key_arns.data]
  }

  statement {
    sid       = "EncryptAuditRecords"
    actions   = ["kms:GenerateDataKey"]
    resources = [var.key_arns.audit]
  }

  statement {
    sid       = "ReadSharedSecrets"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = var.shared_secret_arns
  }

  statement {
    sid       = "RaiseAlerts"
    actions   = ["sns:Publish"]
    resources = [var.topic_arn]
  }
}
