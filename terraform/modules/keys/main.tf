# Keys that encrypt, the key that signs checkpoints, and empty secrets for what only its owner may know.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  root_arn = "arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root"
}

# In a key policy the resource "*" is the key itself: no ARN can be named there.
data "aws_iam_policy_document" "data_key" {
  #checkov:skip=CKV_AWS_109:a key policy names its own key by "*", and its account decides by IAM
  #checkov:skip=CKV_AWS_111:see above
  #checkov:skip=CKV_AWS_356:see above
  statement {
    sid = "TheAccountDecidesByIam"
    actions = [
      "kms:CancelKeyDeletion", "kms:CreateAlias", "kms:CreateGrant", "kms:Decrypt", "kms:DeleteAlias", "kms:DescribeKey",
      "kms:DisableKey", "kms:DisableKeyRotation", "kms:EnableKey", "kms:EnableKeyRotation", "kms:Encrypt",
      "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus",
      "kms:ListGrants", "kms:ListKeyPolicies", "kms:ListResourceTags", "kms:PutKeyPolicy", "kms:ReEncryptFrom",
      "kms:ReEncryptTo", "kms:RevokeGrant", "kms:ScheduleKeyDeletion", "kms:TagResource", "kms:UntagResource",
      "kms:UpdateAlias", "kms:UpdateKeyDescription",
    ]
    resources = ["*"] # sluice:skip=wildcard-resource: a key policy cannot name its key otherwise

    principals {
      type        = "AWS"
      identifiers = [local.root_arn]
    }
  }

  statement {
    sid       = "NoticesToQueuesAndAlarmsToTheTopic"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = ["*"] # sluice:skip=wildcard-resource: a key policy cannot name its key otherwise

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com", "s3.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }

  statement {
    sid       = "LogsOfThisDeployment"
    actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo"]
    resources = ["*"] # sluice:skip=wildcard-resource: a key policy cannot name its key otherwise

    principals {
      type        = "Service"
      identifiers = ["logs.${data.aws_region.current.region}.amazonaws.com"]
    }

    condition {
      test     = "ArnLike"
      variable = "kms:EncryptionContext:aws:logs:arn"
      values   = ["arn:${data.aws_partition.current.partition}:logs:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:log-group:*"]
    }
  }
}

resource "aws_kms_key" "data" {
  description             = "${var.name}: queues, data bucket, logs, secrets, topic, images"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.data_key.json
}

resource "aws_kms_alias" "data" {
  name          = "alias/${var.name}-data"
  target_key_id = aws_kms_key.data.key_id
}

data "aws_iam_policy_document" "sealing_key" {
  #checkov:skip=CKV_AWS_109:a key policy names its own key by "*", and its account decides by IAM
  #checkov:skip=CKV_AWS_111:see above
  #checkov:skip=CKV_AWS_356:see above
  statement {
    sid = "TheAccountDecidesByIam"
    actions = [
      "kms:CancelKeyDeletion", "kms:CreateAlias", "kms:DeleteAlias", "kms:DescribeKey", "kms:DisableKey", "kms:EnableKey",
      "kms:GetKeyPolicy", "kms:GetPublicKey", "kms:ListKeyPolicies", "kms:ListResourceTags", "kms:PutKeyPolicy",
      "kms:ScheduleKeyDeletion", "kms:Sign", "kms:TagResource", "kms:UntagResource", "kms:UpdateAlias",
      "kms:UpdateKeyDescription",
    ]
    resources = ["*"] # sluice:skip=wildcard-resource: a key policy cannot name its key otherwise

    principals {
      type        = "AWS"
      identifiers = [local.root_arn]
    }
  }
}

# The sealer's key never leaves KMS. tasks/access/sources.py reads it by kms://REGION/ID?name=sealer.
resource "aws_kms_key" "sealing" {
  #checkov:skip=CKV_AWS_7:KMS rotates no asymmetric keys
  description              = "${var.name}: signs the checkpoints of the audit"
  key_usage                = "SIGN_VERIFY"
  customer_master_key_spec = "ECC_NIST_EDWARDS25519"
  deletion_window_in_days  = 30
  policy                   = data.aws_iam_policy_document.sealing_key.json
}

resource "aws_kms_alias" "sealing" {
  name          = "alias/${var.name}-sealing"
  target_key_id = aws_kms_key.sealing.key_id
}

# Empty on purpose: `sluice keys new` makes their content outside of Terraform, so no private key is ever in the state.
resource "aws_secretsmanager_secret" "signing" {
  #checkov:skip=CKV2_AWS_57:a key set is rotated by `sluice keys new` together with the ring, see docs/access.md
  for_each = var.signers

  name                    = "${var.name}/signing/${each.key}"
  description             = "Private Ed25519 key set that ${each.key} signs with"
  kms_key_id              = aws_kms_key.data.arn
  recovery_window_in_days = 7
}

resource "aws_secretsmanager_secret" "ring" {
  #checkov:skip=CKV2_AWS_57:the ring is public and changes when a key is added or withdrawn
  name                    = "${var.name}/ring"
  description             = "Public keys that every process trusts, with their scopes"
  kms_key_id              = aws_kms_key.data.arn
  recovery_window_in_days = 7
}

resource "aws_secretsmanager_secret" "commitment" {
  #checkov:skip=CKV2_AWS_57:a new key would end the commitments made so far
  name                    = "${var.name}/commitment"
  description             = "Key of the commitments in redaction marks; may stay empty"
  kms_key_id              = aws_kms_key.data.arn
  recovery_window_in_days = 7
}

resource "aws_secretsmanager_secret" "callbacks" {
  #checkov:skip=CKV2_AWS_57:receivers hold what is derived from it, and are to be told before it changes
  name                    = "${var.name}/callbacks"
  description             = "What callbacks are signed with; tenants' secrets are derived from it"
  kms_key_id              = aws_kms_key.data.arn
  recovery_window_in_days = 7
}

resource "aws_secretsmanager_secret" "model" {
  #checkov:skip=CKV2_AWS_57:the model provider's key is rotated at the model provider
  name                    = "${var.name}/model-api-key"
  description             = "Key of the language model's endpoint, for agent pools"
  kms_key_id              = aws_kms_key.data.arn
  recovery_window_in_days = 7
}
