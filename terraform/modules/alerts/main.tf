# A topic that people subscribe to, alarms that go there, and a dashboard. Alerts on audit records (docs/alerts.md) go to the
# same topic straight from the process that saw them.

locals {
  told    = [aws_sns_topic.this.arn]
  metrics = "Sluice/${var.name}"
  # Whole minutes without a checkpoint after which the audit counts as not sealed.
  unsealed_minutes = max(5, 3 * ceil(var.seal_seconds / 60))
}

resource "aws_sns_topic" "this" {
  name              = "${var.name}-alerts"
  kms_master_key_id = var.key_arn
}

data "aws_caller_identity" "current" {}

data "aws_iam_policy_document" "topic" {
  statement {
    sid       = "AlarmsOfThisAccount"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.this.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }

  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.this.arn]

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
}

resource "aws_sns_topic_policy" "this" {
  arn    = aws_sns_topic.this.arn
  policy = data.aws_iam_policy_document.topic.json
}

resource "aws_sns_topic_subscription" "email" {
  for_each = var.emails

  topic_arn = aws_sns_topic.this.arn
  protocol  = "email"
  endpoint  = each.key
}

# Queues -----------------------------------------------------------------------------------------------

resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  for_each = var.terminal_queues

  alarm_name          = "${each.key} is not empty"
  alarm_description   = "A request failed for good, or a message was no request of ours: docs/operations.md, dead letters."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = each.key }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.told
  ok_actions          = local.told
}

resource "aws_cloudwatch_metric_alarm" "oldest" {
  for_each = var.work_queues

  alarm_name          = "${each.key} waits too long"
  alarm_description   = "The oldest message waits longer than ${var.oldest_seconds} s: workers do not come, or do not keep up."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateAgeOfOldestMessage"
  dimensions          = { QueueName = each.key }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.oldest_seconds
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.told
  ok_actions          = local.told
}

# Audit ------------------------------------------------------------------------------------------------

# A function that does not run is as bad as one that fails: what is missing counts as none.
resource "aws_cloudwatch_metric_alarm" "unsealed" {
  alarm_name          = "${var.name} audit is not sealed"
  alarm_description   = "No checkpoint for ${local.unsealed_minutes} minutes: docs/audit.md, the ledger."
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  evaluation_periods  = 1
  treat_missing_data  = "breaching"
  alarm_actions       = local.told
  ok_actions          = local.told

  metric_query {
    id          = "sealed"
    label       = "Runs of the sealer that ended well"
    expression  = "FILL(runs, 0) - FILL(errors, 0)"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { runs = "Invocations", errors = "Errors" }

    content {
      id = metric_query.key

      metric {
        namespace   = "AWS/Lambda"
        metric_name = metric_query.value
        dimensions  = { FunctionName = var.function_names["seal"] }
        stat        = "Sum"
        period      = local.unsealed_minutes * 60
      }
    }
  }
}

resource "aws_cloudwatch_log_metric_filter" "violations" {
  for_each = var.log_group_names

  name           = "permission violations of ${each.key}"
  log_group_name = each.value
  pattern        = "{ $.event = \"alert\" && $.alert = \"permission_violation\" }"

  metric_transformation {
    namespace = local.metrics
    name      = "PermissionViolations"
    value     = "1"
    unit      = "Count"
  }
}

resource "aws_cloudwatch_metric_alarm" "violations" {
  alarm_name          = "${var.name} permission violations"
  alarm_description   = "Somebody asked for what the policy does not allow: sluice audit search --action permission.violation."
  namespace           = local.metrics
  metric_name         = "PermissionViolations"
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.told

  depends_on = [aws_cloudwatch_log_metric_filter.violations]
}

# Functions and API ------------------------------------------------------------------------------------

resource "aws_cloudwatch_metric_alarm" "function_errors" {
  for_each = var.function_names

  alarm_name          = "${each.value} fails"
  alarm_description   = "The function ended with an error in three minutes of five: its log group says why."
  namespace           = "AWS/Lambda"
  metric_name         = "Errors"
  dimensions          = { FunctionName = each.value }
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 5
  datapoints_to_alarm = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.told
  ok_actions          = local.told
}

resource "aws_cloudwatch_metric_alarm" "server_errors" {
  alarm_name          = "${var.name} answers 5xx"
  alarm_description   = "The HTTP door answered with a server error."
  namespace           = "AWS/ApiGateway"
  metric_name         = "5XXError"
  dimensions          = { ApiName = var.api.name, Stage = var.api.stage }
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.told
  ok_actions          = local.told
}

# State store --------------------------------------------------------------------------------------------

# Nothing is evicted: at 100 % writes are refused, and no request is accepted.
resource "aws_cloudwatch_metric_alarm" "state_memory" {
  for_each = var.state_nodes

  alarm_name          = "${each.key} memory"
  alarm_description   = "The state store is three quarters full; when it is full it refuses new requests. Take a larger node type."
  namespace           = "AWS/ElastiCache"
  metric_name         = "DatabaseMemoryUsagePercentage"
  dimensions          = { CacheClusterId = each.key }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 2
  comparison_operator = "GreaterThanThreshold"
  threshold           = 75
  treat_missing_data  = "missing"
  alarm_actions       = local.told
  ok_actions          = local.told
}
