# Doors, sealer and sweeper: the functions of Lambda.

locals {
  functions = {
    s3  = { signer = "door", receives = [var.queues.uploads], sends = "requests", reads = ["results", "uploads"], writes = ["bodies", "manifests"] }
    sqs = { signer = "door", receives = [var.queues.events], sends = "requests", reads = ["results"], writes = ["bodies"] }
    http = {
      signer = "door", receives = [], sends = "every",
      reads  = ["bodies", "escalations", "plans", "results", "sessions", "steps"], writes = ["bodies", "escalations", "results"]
    }
    sweep = { signer = "sweeper", receives = [var.queues.dead_letters], sends = "every", reads = ["bodies", "plans", "results", "steps"], writes = ["results", "steps"] }
    seal  = { signer = null, receives = [], sends = "none", reads = [], writes = [] }
  }
  sends = {
    requests = concat(local.requests, local.dead_ends)
    every    = concat(flatten(values(local.arns)), local.dead_ends)
    none     = []
  }
  function_arn = "arn:${data.aws_partition.current.partition}:lambda:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:function:${var.name}"
}

data "aws_iam_policy_document" "function" {
  #checkov:skip=CKV_AWS_111:Lambda demands network calls without ARN; the last statement denies them to the code
  for_each = local.functions

  source_policy_documents = [data.aws_iam_policy_document.common.json]

  dynamic "statement" {
    for_each = length(each.value.receives) > 0 ? [each.value.receives] : []

    content {
      sid       = "ReadOwnQueues"
      actions   = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
      resources = [for queue in statement.value : var.queue_arns[queue]]
    }
  }

  dynamic "statement" {
    for_each = length(local.sends[each.value.sends]) > 0 ? [local.sends[each.value.sends]] : []

    content {
      sid       = "HandOn"
      actions   = ["sqs:GetQueueAttributes", "sqs:SendMessage"]
      resources = statement.value
    }
  }

  dynamic "statement" {
    for_each = length(each.value.reads) > 0 ? [each.value.reads] : []

    content {
      sid       = "ReadObjects"
      actions   = ["s3:GetObject"]
      resources = [for use in statement.value : local.objects[use]]
    }
  }

  dynamic "statement" {
    for_each = length(each.value.writes) > 0 ? [each.value.writes] : []

    content {
      sid       = "CreateObjects"
      actions   = ["s3:PutObject"]
      resources = [for use in statement.value : local.objects[use]]
    }
  }

  dynamic "statement" {
    for_each = each.value.signer == null ? [] : [each.value.signer]

    content {
      sid       = "SignWithOwnKey"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [var.signing_secret_arns[statement.value]]
    }
  }

  # The sealer reads all segments, writes the ledger over them, and signs with a key that it never sees.
  dynamic "statement" {
    for_each = each.key == "seal" ? {
      ListAudit    = { actions = ["s3:ListBucket"], resources = [var.audit_bucket_arn] }
      ReadAudit    = { actions = ["s3:GetObject"], resources = [local.records.audit, local.records.checkpoints, local.records.ledger] }
      WriteLedger  = { actions = ["s3:PutObject"], resources = [local.records.checkpoints, local.records.ledger] }
      DecryptAudit = { actions = ["kms:Decrypt"], resources = [var.key_arns.audit] }
      SignLedger   = { actions = ["kms:GetPublicKey", "kms:Sign"], resources = [var.key_arns.sealing] }
    } : {}

    content {
      sid       = statement.key
      actions   = statement.value.actions
      resources = statement.value.resources
    }
  }

  statement {
    sid       = "WriteOwnLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${var.log_group_arns[each.key]}:*"]
  }

  statement {
    sid       = "SendTraces"
    actions   = ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]
    resources = ["*"] # sluice:skip=wildcard-resource: X-Ray supports no ARN for these calls
  }

  # Lambda itself attaches the function to the VPC with this role; the code of the function is denied the same calls.
  statement {
    sid = "LetLambdaAttach"
    actions = [
      "ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface",
      "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses",
    ]
    resources = ["*"] # sluice:skip=wildcard-resource: Lambda demands it so, see the deny below
  }

  statement {
    sid    = "AndNotTheCode"
    effect = "Deny"
    actions = [
      "ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface",
      "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses",
    ]
    resources = ["*"] # sluice:skip=wildcard-resource: a denial cannot be too wide

    condition {
      test     = "ArnEquals"
      variable = "lambda:SourceFunctionArn"
      values   = ["${local.function_arn}-${each.key}"]
    }
  }
}

data "aws_iam_policy_document" "function_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "function" {
  for_each = local.functions

  name               = "${var.name}-${each.key}"
  description        = "Function ${each.key}"
  assume_role_policy = data.aws_iam_policy_document.function_trust.json
}

resource "aws_iam_role_policy" "function" {
  for_each = local.functions

  name   = "function"
  role   = aws_iam_role.function[each.key].id
  policy = data.aws_iam_policy_document.function[each.key].json
}
