# Workers: a pool reads its own queues only, and signs with its own key only.

locals {
  kinds = {
    for pool, it in var.pools : pool =>
    it.agent != null ? "agent" : pool == var.pool_names.callbacks ? "callbacks" : "intent"
  }
  # Where each pool sends to: its own queues, for what it gives back; a callback goes nowhere else. Intent sends to every agent, and
  # an agent to hop 1 (next turns), to its fallback, and to whatever a plan's next step, or its planner, waits in.
  destinations = {
    for pool in keys(var.pools) : pool => concat(
      local.kinds[pool] == "callbacks" ? local.arns[pool] : flatten(values(local.arns)),
      local.dead_ends,
    )
  }
  reads = {
    intent    = ["bodies", "models", "results"]
    agent     = ["attachments", "bodies", "escalations", "journal", "plans", "results", "sessions", "steps"]
    callbacks = ["bodies", "results"]
  }
  writes = {
    intent    = ["results"]
    agent     = ["escalations", "journal", "results", "sessions", "steps"]
    callbacks = []
  }
  secrets = {
    intent    = []
    agent     = [var.model_secret_arn]
    callbacks = [var.callback_secret_arn]
  }
}

data "aws_iam_policy_document" "pool" {
  for_each = var.pools

  source_policy_documents = [data.aws_iam_policy_document.common.json]

  statement {
    sid       = "ReadOwnQueues"
    actions   = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
    resources = local.arns[each.key]
  }

  statement {
    sid       = "HandOn"
    actions   = ["sqs:GetQueueAttributes", "sqs:SendMessage"]
    resources = local.destinations[each.key]
  }

  statement {
    sid       = "ReadObjects"
    actions   = ["s3:GetObject"]
    resources = [for use in local.reads[local.kinds[each.key]] : local.objects[use]]
  }

  dynamic "statement" {
    for_each = length(local.writes[local.kinds[each.key]]) > 0 ? [local.writes[local.kinds[each.key]]] : []

    content {
      sid     = "CreateObjects"
      actions = ["s3:PutObject"]
      resources = [
        for use in concat(statement.value, each.value.agent == var.pool_names.planner ? ["plans"] : []) : local.objects[use]
      ]
    }
  }

  statement {
    sid       = "SignWithOwnKey"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = concat([var.signing_secret_arns[each.key]], local.secrets[local.kinds[each.key]])
  }
}

data "aws_iam_policy_document" "pool_trust" {
  for_each = var.cluster == null ? {} : var.pools

  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [var.cluster.arn]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/kubernetes-namespace"
      values   = [var.namespace]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/kubernetes-service-account"
      values   = [local.service_accounts[each.key]]
    }
  }
}

locals {
  service_accounts = { for pool, it in var.pools : pool => "sluice-${it.kubernetes_name}" }
}

resource "aws_iam_role" "pool" {
  for_each = data.aws_iam_policy_document.pool_trust

  name               = "${var.name}-pool-${var.pools[each.key].kubernetes_name}"
  description        = "Workers of pool ${each.key}"
  assume_role_policy = each.value.json
}

resource "aws_iam_role_policy" "pool" {
  for_each = aws_iam_role.pool

  name   = "pool"
  role   = each.value.id
  policy = data.aws_iam_policy_document.pool[each.key].json
}

resource "aws_eks_pod_identity_association" "pool" {
  for_each = aws_iam_role.pool

  cluster_name    = var.cluster.name
  namespace       = var.namespace
  service_account = local.service_accounts[each.key]
  role_arn        = each.value.arn
}

# KEDA looks at how long the pools' queues are, and cannot read a message -----------------------------------

data "aws_iam_policy_document" "keda" {
  statement {
    sid       = "CountMessages"
    actions   = ["sqs:GetQueueAttributes"]
    resources = flatten(values(local.arns))
  }
}

data "aws_iam_policy_document" "keda_trust" {
  count = var.cluster == null ? 0 : 1

  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [var.cluster.arn]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/kubernetes-service-account"
      values   = [var.keda_service_account.service_account]
    }
  }
}

resource "aws_iam_role" "keda" {
  count = length(data.aws_iam_policy_document.keda_trust)

  name               = "${var.name}-keda"
  description        = "KEDA's operator"
  assume_role_policy = data.aws_iam_policy_document.keda_trust[0].json
}

resource "aws_iam_role_policy" "keda" {
  count = length(aws_iam_role.keda)

  name   = "count"
  role   = aws_iam_role.keda[0].id
  policy = data.aws_iam_policy_document.keda.json
}

resource "aws_eks_pod_identity_association" "keda" {
  count = var.associate_keda ? length(aws_iam_role.keda) : 0

  cluster_name    = var.cluster.name
  namespace       = var.keda_service_account.namespace
  service_account = var.keda_service_account.service_account
  role_arn        = aws_iam_role.keda[0].arn
}
