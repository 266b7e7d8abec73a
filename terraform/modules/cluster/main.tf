# Where workers run: an EKS cluster, new or given, with the engine for network policies and the agent for pod identities.
# nodes.tf has its nodes, charts.tf has KEDA and what nodes need to come and go.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

data "aws_eks_cluster" "existing" {
  count = 1 - local.new
  name  = var.existing
}

locals {
  new        = var.existing == null ? 1 : 0
  name       = local.new == 1 ? aws_eks_cluster.this[0].name : data.aws_eks_cluster.existing[0].name
  arn        = local.new == 1 ? aws_eks_cluster.this[0].arn : data.aws_eks_cluster.existing[0].arn
  aws_policy = "arn:${data.aws_partition.current.partition}:iam::aws:policy"
}

resource "aws_cloudwatch_log_group" "control_plane" {
  #checkov:skip=CKV_AWS_338:kept for log_retention_days; what must be kept for long is in the audit bucket
  count = local.new

  name              = "/aws/eks/${var.name}/cluster"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.key_arn
}

resource "aws_eks_cluster" "this" {
  #checkov:skip=CKV_AWS_38:callers are authenticated by IAM; admin_cidrs narrows it, as the apply itself must get there
  #checkov:skip=CKV_AWS_39:see above; admin_cidrs = [] turns it off
  count = local.new

  name                          = var.name
  role_arn                      = aws_iam_role.control_plane[0].arn
  version                       = var.kubernetes_version
  enabled_cluster_log_types     = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
  bootstrap_self_managed_addons = false

  access_config {
    authentication_mode                         = "API"
    bootstrap_cluster_creator_admin_permissions = true
  }

  vpc_config {
    subnet_ids              = var.subnet_ids
    endpoint_private_access = true
    endpoint_public_access  = length(var.admin_cidrs) > 0
    public_access_cidrs     = length(var.admin_cidrs) > 0 ? var.admin_cidrs : null
  }

  encryption_config {
    resources = ["secrets"]

    provider {
      key_arn = var.key_arn
    }
  }

  depends_on = [aws_cloudwatch_log_group.control_plane, aws_iam_role_policy_attachment.control_plane, aws_iam_role_policy.control_plane]
}

data "aws_iam_policy_document" "control_plane_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["eks.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "control_plane" {
  count = local.new

  name_prefix        = "${var.name}-eks-"
  assume_role_policy = data.aws_iam_policy_document.control_plane_trust.json
}

resource "aws_iam_role_policy_attachment" "control_plane" {
  count = local.new

  role       = aws_iam_role.control_plane[0].name
  policy_arn = "${local.aws_policy}/AmazonEKSClusterPolicy"
}

data "aws_iam_policy_document" "control_plane" {
  statement {
    sid       = "EncryptSecrets"
    actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:ListGrants"]
    resources = [var.key_arn]
  }
}

resource "aws_iam_role_policy" "control_plane" {
  count = local.new

  name   = "encrypt"
  role   = aws_iam_role.control_plane[0].id
  policy = data.aws_iam_policy_document.control_plane.json
}

# Network policies of the manifests hold only where the CNI enforces them: it does not by default.
resource "aws_eks_addon" "network" {
  count = local.new

  cluster_name                = aws_eks_cluster.this[0].name
  addon_name                  = "vpc-cni"
  configuration_values        = jsonencode({ enableNetworkPolicy = "true" })
  resolve_conflicts_on_update = "OVERWRITE"
}

resource "aws_eks_addon" "before_nodes" {
  for_each = local.new == 1 ? toset(["eks-pod-identity-agent", "kube-proxy"]) : toset([])

  cluster_name                = aws_eks_cluster.this[0].name
  addon_name                  = each.key
  resolve_conflicts_on_update = "OVERWRITE"
}

resource "aws_eks_addon" "dns" {
  count = local.new

  cluster_name                = aws_eks_cluster.this[0].name
  addon_name                  = "coredns"
  resolve_conflicts_on_update = "OVERWRITE"

  depends_on = [aws_eks_node_group.system]
}
