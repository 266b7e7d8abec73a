# KEDA scales pods by queues; the cluster autoscaler then scales nodes by pods; the device plugin shows GPUs to pods.

locals {
  keda = {
    namespace       = "keda"
    service_account = "keda-operator"
  }
  autoscaler = {
    namespace       = "kube-system"
    service_account = "cluster-autoscaler"
  }
}

resource "helm_release" "keda" {
  count = var.install_keda ? 1 : 0

  name             = "keda"
  repository       = "https://kedacore.github.io/charts"
  chart            = "keda"
  version          = var.keda_version
  namespace        = local.keda.namespace
  create_namespace = true
  timeout          = 600

  set = [
    { name = "serviceAccount.operator.name", value = local.keda.service_account },
    { name = "operator.replicaCount", value = "2" },
  ]

  depends_on = [aws_eks_addon.dns]
}

resource "helm_release" "autoscaler" {
  count = local.new

  name       = "cluster-autoscaler"
  repository = "https://kubernetes.github.io/autoscaler"
  chart      = "cluster-autoscaler"
  version    = "9.46.6"
  namespace  = local.autoscaler.namespace
  timeout    = 600

  set = [
    { name = "autoDiscovery.clusterName", value = local.name },
    { name = "awsRegion", value = data.aws_region.current.region },
    { name = "rbac.serviceAccount.name", value = local.autoscaler.service_account },
    { name = "extraArgs.scale-down-unneeded-time", value = "5m" },
  ]

  depends_on = [aws_eks_addon.dns, aws_eks_pod_identity_association.autoscaler]
}

resource "helm_release" "gpu" {
  count = anytrue([for pool in local.node_pools : pool.gpu]) ? 1 : 0

  name       = "nvidia-device-plugin"
  repository = "https://nvidia.github.io/k8s-device-plugin"
  chart      = "nvidia-device-plugin"
  version    = "0.17.1"
  namespace  = "kube-system"
  timeout    = 600

  depends_on = [aws_eks_addon.dns]
}

# What the cluster autoscaler may: look at everything, change only the node groups of this cluster -----------

data "aws_region" "current" {}

data "aws_iam_policy_document" "autoscaler_trust" {
  count = local.new

  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_eks_cluster.this[0].arn]
    }
  }
}

data "aws_iam_policy_document" "autoscaler" {
  count = local.new

  statement {
    sid = "Look"
    actions = [
      "autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeAutoScalingInstances",
      "autoscaling:DescribeLaunchConfigurations", "autoscaling:DescribeScalingActivities", "autoscaling:DescribeTags",
      "ec2:DescribeImages", "ec2:DescribeInstanceTypes", "ec2:DescribeLaunchTemplateVersions",
      "ec2:GetInstanceTypesFromInstanceRequirements",
    ]
    resources = ["*"] # sluice:skip=wildcard-resource: these calls support no ARN
  }

  statement {
    sid       = "LookAtNodeGroups"
    actions   = ["eks:DescribeNodegroup"]
    resources = ["arn:${data.aws_partition.current.partition}:eks:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:nodegroup/${var.name}/*/*"]
  }

  statement {
    sid       = "ScaleThisCluster"
    actions   = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
    resources = ["arn:${data.aws_partition.current.partition}:autoscaling:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:autoScalingGroup:*:autoScalingGroupName/eks-*"]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/k8s.io/cluster-autoscaler/${var.name}"
      values   = ["owned"]
    }
  }
}

resource "aws_iam_role" "autoscaler" {
  count = local.new

  name_prefix        = "${var.name}-autoscaler-"
  assume_role_policy = data.aws_iam_policy_document.autoscaler_trust[0].json
}

resource "aws_iam_role_policy" "autoscaler" {
  count = local.new

  name   = "scale"
  role   = aws_iam_role.autoscaler[0].id
  policy = data.aws_iam_policy_document.autoscaler[0].json
}

resource "aws_eks_pod_identity_association" "autoscaler" {
  count = local.new

  cluster_name    = aws_eks_cluster.this[0].name
  namespace       = local.autoscaler.namespace
  service_account = local.autoscaler.service_account
  role_arn        = aws_iam_role.autoscaler[0].arn
}
