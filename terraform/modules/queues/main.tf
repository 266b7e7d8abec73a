# Every queue of the pipeline. What a pool received too often is a dead letter; what no door could take is quarantined.

data "aws_caller_identity" "current" {}

locals {
  of_pools    = toset(flatten([for queues in values(var.pools) : [queues.normal, queues.high]]))
  terminal    = toset([var.dead_letters, var.quarantine])
  max_bytes   = 1048576 # the most that SQS takes
  key_minutes = 5       # each data key is used so long: fewer calls of KMS
  day         = 24 * 3600
}

resource "aws_sqs_queue" "pool" {
  for_each = local.of_pools

  name                              = var.names[each.key]
  visibility_timeout_seconds        = ceil(var.visibility_seconds)
  message_retention_seconds         = var.retention_days * local.day
  receive_wait_time_seconds         = 20
  max_message_size                  = local.max_bytes
  kms_master_key_id                 = var.key_arn
  kms_data_key_reuse_period_seconds = local.key_minutes * 60

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.terminal[var.dead_letters].arn
    maxReceiveCount     = var.attempts
  })
}

# Lambda needs six times the function's time-out: a batch that is throttled must not come back while it is still tried.
resource "aws_sqs_queue" "intake" {
  for_each = var.intakes

  name                              = var.names[each.key]
  visibility_timeout_seconds        = 6 * each.value
  message_retention_seconds         = var.retention_days * local.day
  receive_wait_time_seconds         = 20
  max_message_size                  = local.max_bytes
  kms_master_key_id                 = var.key_arn
  kms_data_key_reuse_period_seconds = local.key_minutes * 60

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.terminal[var.quarantine].arn
    maxReceiveCount     = var.attempts
  })
}

# Nothing consumes these but a person: they keep as long as SQS can.
resource "aws_sqs_queue" "terminal" {
  for_each = local.terminal

  name                              = var.names[each.key]
  message_retention_seconds         = 14 * local.day
  max_message_size                  = local.max_bytes
  kms_master_key_id                 = var.key_arn
  kms_data_key_reuse_period_seconds = local.key_minutes * 60
}

# SQS takes ten sources by name, the queues of five pools. There are more with the default agent types already, so any queue
# of this account may redrive here.
resource "aws_sqs_queue_redrive_allow_policy" "dead_letters" {
  queue_url = aws_sqs_queue.terminal[var.dead_letters].id

  redrive_allow_policy = length(local.of_pools) > 10 ? jsonencode({ redrivePermission = "allowAll" }) : jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [for queue in aws_sqs_queue.pool : queue.arn]
  })
}

resource "aws_sqs_queue_redrive_allow_policy" "quarantine" {
  queue_url = aws_sqs_queue.terminal[var.quarantine].id

  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [for queue in aws_sqs_queue.intake : queue.arn]
  })
}

locals {
  queues = merge(aws_sqs_queue.pool, aws_sqs_queue.intake, aws_sqs_queue.terminal)
}

data "aws_iam_policy_document" "queue" {
  for_each = local.queues

  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["sqs:DeleteMessage", "sqs:ReceiveMessage", "sqs:SendMessage"]
    resources = [each.value.arn]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  dynamic "statement" {
    for_each = each.key == var.uploads ? [var.data_bucket_arn] : []

    content {
      sid       = "NoticesOfUploads"
      actions   = ["sqs:SendMessage"]
      resources = [each.value.arn]

      principals {
        type        = "Service"
        identifiers = ["s3.amazonaws.com"]
      }

      condition {
        test     = "ArnEquals"
        variable = "aws:SourceArn"
        values   = [statement.value]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [data.aws_caller_identity.current.account_id]
      }
    }
  }
}

resource "aws_sqs_queue_policy" "this" {
  for_each = local.queues

  queue_url = each.value.id
  policy    = data.aws_iam_policy_document.queue[each.key].json
}
