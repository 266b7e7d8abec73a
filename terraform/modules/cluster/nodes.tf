# Nodes of a new cluster: two small ones for the system, and pools that begin at their minimum, GPUs at zero.

locals {
  node_pools = local.new == 1 ? var.node_pools : {}
}

data "aws_iam_policy_document" "node_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "node" {
  count = local.new

  name_prefix        = "${var.name}-node-"
  assume_role_policy = data.aws_iam_policy_document.node_trust.json
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = local.new == 1 ? toset(["AmazonEC2ContainerRegistryPullOnly", "AmazonEKS_CNI_Policy", "AmazonEKSWorkerNodePolicy"]) : toset([])

  role       = aws_iam_role.node[0].name
  policy_arn = "${local.aws_policy}/${each.key}"
}

# One hop: pods cannot reach the node's credentials. Pod identities do not need it.
resource "aws_launch_template" "node" {
  for_each = local.new == 1 ? merge({ system = { disk_gib = 30 } }, { for pool, it in var.node_pools : pool => { disk_gib = it.disk_gib } }) : {}

  name_prefix            = "${var.name}-${each.key}-"
  update_default_version = true

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_size           = each.value.disk_gib
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }
}

resource "aws_eks_node_group" "system" {
  count = local.new

  cluster_name    = aws_eks_cluster.this[0].name
  node_group_name = "system"
  node_role_arn   = aws_iam_role.node[0].arn
  subnet_ids      = var.subnet_ids
  ami_type        = "AL2023_x86_64_STANDARD"
  instance_types  = ["t3.medium"]

  launch_template {
    id      = aws_launch_template.node["system"].id
    version = aws_launch_template.node["system"].latest_version
  }

  scaling_config {
    desired_size = 2
    min_size     = 2
    max_size     = 3
  }

  depends_on = [aws_iam_role_policy_attachment.node, aws_eks_addon.network, aws_eks_addon.before_nodes]
}

resource "aws_eks_node_group" "pool" {
  for_each = local.node_pools

  cluster_name    = aws_eks_cluster.this[0].name
  node_group_name = each.key
  node_role_arn   = aws_iam_role.node[0].arn
  subnet_ids      = var.subnet_ids
  ami_type        = each.value.gpu ? "AL2023_x86_64_NVIDIA" : "AL2023_x86_64_STANDARD"
  instance_types  = each.value.instance_types
  labels          = merge({ "sluice/nodes" = each.key }, each.value.gpu ? { "nvidia.com/gpu.present" = "true" } : {})

  launch_template {
    id      = aws_launch_template.node[each.key].id
    version = aws_launch_template.node[each.key].latest_version
  }

  scaling_config {
    desired_size = each.value.min
    min_size     = each.value.min
    max_size     = each.value.max
  }

  # Only pods that ask for a GPU may hold a node with one.
  dynamic "taint" {
    for_each = each.value.gpu ? ["nvidia.com/gpu"] : []

    content {
      key    = taint.value
      value  = "present"
      effect = "NO_SCHEDULE"
    }
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size] # the autoscaler's
  }

  depends_on = [aws_iam_role_policy_attachment.node, aws_eks_addon.network, aws_eks_addon.before_nodes]
}
