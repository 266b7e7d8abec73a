# The functions of the doors, the sealer and the sweeper; what triggers them by queue and by schedule. api.tf has the HTTP
# door, waf.tf what stands before it.

locals {
  # The module that handles each function's events: handlers/aws/.
  handlers  = { for function in keys(var.functions) : function => "handlers.aws.${function}.handler" }
  minutes   = max(1, ceil(var.seal_seconds / 60))
  schedules = { seal = local.minutes, sweep = 1 }
}

resource "aws_cloudwatch_log_group" "function" {
  #checkov:skip=CKV_AWS_338:kept for log_retention_days; what must be kept for long is in the audit bucket
  for_each = var.functions

  name              = "/aws/lambda/${var.name}-${each.key}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.key_arn
}

resource "aws_lambda_function" "this" {
  #checkov:skip=CKV_AWS_115:intakes have maximum_concurrency, schedules run one at a time, the API has its own limits
  #checkov:skip=CKV_AWS_116:failed events go back to their queue and then to the quarantine; schedules come again
  #checkov:skip=CKV_AWS_272:the zip's hash is in the plan; signing profiles are the deployment's own choice
  for_each = var.functions

  function_name    = "${var.name}-${each.key}"
  description      = "Sluice: ${each.key}"
  role             = var.role_arns[each.key]
  runtime          = "python3.11"
  handler          = local.handlers[each.key]
  filename         = var.zip
  source_code_hash = filebase64sha256(var.zip)
  architectures    = [var.architecture]
  timeout          = each.value.timeout
  memory_size      = each.value.memory
  kms_key_arn      = var.key_arn

  environment {
    variables = var.environment[each.key]
  }

  vpc_config {
    subnet_ids         = var.subnet_ids
    security_group_ids = [var.security_group_id]
  }

  tracing_config {
    mode = "Active"
  }

  logging_config {
    log_format = "Text" # the program writes JSON lines itself
    log_group  = aws_cloudwatch_log_group.function[each.key].name
  }
}

# Only the messages that failed come back.
resource "aws_lambda_event_source_mapping" "intake" {
  for_each = var.intake_arns

  event_source_arn                   = each.value
  function_name                      = aws_lambda_function.this[each.key].arn
  function_response_types            = ["ReportBatchItemFailures"]
  batch_size                         = 10
  maximum_batching_window_in_seconds = 0

  scaling_config {
    maximum_concurrency = var.intake_concurrency
  }
}

# Schedules -------------------------------------------------------------------------------------------

resource "aws_scheduler_schedule_group" "this" {
  name = var.name
}

resource "aws_scheduler_schedule" "this" {
  for_each = local.schedules

  name                = each.key
  group_name          = aws_scheduler_schedule_group.this.name
  schedule_expression = each.value == 1 ? "rate(1 minute)" : "rate(${each.value} minutes)"
  kms_key_arn         = var.key_arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_lambda_function.this[each.key].arn
    role_arn = aws_iam_role.scheduler.arn

    # The next one comes in a minute, and does what this one did not.
    retry_policy {
      maximum_retry_attempts       = 0
      maximum_event_age_in_seconds = 60
    }
  }
}

data "aws_caller_identity" "current" {}

data "aws_iam_policy_document" "scheduler_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

data "aws_iam_policy_document" "scheduler" {
  statement {
    sid       = "InvokeScheduledFunctions"
    actions   = ["lambda:InvokeFunction"]
    resources = [for function in keys(local.schedules) : aws_lambda_function.this[function].arn]
  }

  statement {
    sid       = "DecryptSchedules"
    actions   = ["kms:Decrypt"]
    resources = [var.key_arn]
  }
}

resource "aws_iam_role" "scheduler" {
  name               = "${var.name}-scheduler"
  description        = "EventBridge Scheduler: seal and sweep"
  assume_role_policy = data.aws_iam_policy_document.scheduler_trust.json
}

resource "aws_iam_role_policy" "scheduler" {
  name   = "invoke"
  role   = aws_iam_role.scheduler.id
  policy = data.aws_iam_policy_document.scheduler.json
}
