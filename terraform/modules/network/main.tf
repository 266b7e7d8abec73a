# Where everything runs: a VPC, new or given, private subnets, endpoints of AWS services, and the doors' security group.

data "aws_availability_zones" "available" {
  #checkov:skip=CKV_AWS_394:zones come in order of their names, and the first zone_count are taken: a new one changes nothing
  count = local.new
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

data "aws_region" "current" {}

data "aws_route_tables" "existing" {
  count  = 1 - local.new
  vpc_id = local.vpc_id
}

data "aws_vpc" "existing" {
  count = 1 - local.new
  id    = var.existing.vpc_id
}

locals {
  new        = var.existing == null ? 1 : 0
  zones      = local.new == 1 ? slice(data.aws_availability_zones.available[0].names, 0, var.zone_count) : []
  gateways   = { single = slice(local.zones, 0, min(1, length(local.zones))), per_zone = local.zones, none = [] }[var.nat]
  vpc_id     = local.new == 1 ? aws_vpc.this[0].id : var.existing.vpc_id
  vpc_cidr   = local.new == 1 ? var.cidr : data.aws_vpc.existing[0].cidr_block
  subnet_ids = local.new == 1 ? [for zone in local.zones : aws_subnet.private[zone].id] : var.existing.subnet_ids
  routes     = local.new == 1 ? [for zone in local.zones : aws_route_table.private[zone].id] : data.aws_route_tables.existing[0].ids
}

resource "aws_vpc" "this" {
  count = local.new

  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = var.name }
}

# The default group lets everything in it talk to everything: emptied.
resource "aws_default_security_group" "this" {
  count  = local.new
  vpc_id = aws_vpc.this[0].id
}

resource "aws_subnet" "private" {
  for_each = toset(local.zones)

  vpc_id            = aws_vpc.this[0].id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.cidr, 3, index(local.zones, each.key))

  tags = { Name = "${var.name}-private-${each.key}", "kubernetes.io/role/internal-elb" = "1" }
}

resource "aws_subnet" "public" {
  for_each = toset(local.gateways)

  vpc_id                  = aws_vpc.this[0].id
  availability_zone       = each.key
  cidr_block              = cidrsubnet(var.cidr, 6, 32 + index(local.zones, each.key))
  map_public_ip_on_launch = false

  tags = { Name = "${var.name}-public-${each.key}" }
}

# Out to the internet ------------------------------------------------------------------------------

resource "aws_internet_gateway" "this" {
  count  = length(local.gateways) > 0 ? 1 : 0
  vpc_id = aws_vpc.this[0].id
}

resource "aws_route_table" "public" {
  count  = length(local.gateways) > 0 ? 1 : 0
  vpc_id = aws_vpc.this[0].id

  tags = { Name = "${var.name}-public" }
}

resource "aws_route" "public" {
  count = length(local.gateways) > 0 ? 1 : 0

  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this[0].id
}

resource "aws_route_table_association" "public" {
  for_each = aws_subnet.public

  subnet_id      = each.value.id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_eip" "nat" {
  #checkov:skip=CKV2_AWS_19:they belong to NAT gateways, not to instances
  for_each = aws_subnet.public
  domain   = "vpc"
}

resource "aws_nat_gateway" "this" {
  for_each = aws_subnet.public

  subnet_id     = each.value.id
  allocation_id = aws_eip.nat[each.key].id

  depends_on = [aws_internet_gateway.this]
}

resource "aws_route_table" "private" {
  for_each = toset(local.zones)
  vpc_id   = aws_vpc.this[0].id

  tags = { Name = "${var.name}-private-${each.key}" }
}

resource "aws_route" "private" {
  for_each = length(local.gateways) > 0 ? toset(local.zones) : toset([])

  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[var.nat == "per_zone" ? each.key : local.gateways[0]].id
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private[each.key].id
}

# Endpoints ------------------------------------------------------------------------------------------

resource "aws_vpc_endpoint" "s3" {
  vpc_id            = local.vpc_id
  service_name      = "com.amazonaws.${data.aws_region.current.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = local.routes
}

resource "aws_vpc_endpoint" "interface" {
  for_each = var.interface_endpoints

  vpc_id              = local.vpc_id
  service_name        = "com.amazonaws.${data.aws_region.current.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = local.subnet_ids
  security_group_ids  = [aws_security_group.endpoints.id]
  private_dns_enabled = true
}

resource "aws_security_group" "endpoints" {
  name_prefix = "${var.name}-endpoints-"
  description = "Interface endpoints: HTTPS from inside the VPC"
  vpc_id      = local.vpc_id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  security_group_id = aws_security_group.endpoints.id
  description       = "HTTPS from inside the VPC"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = local.vpc_cidr
}

# The doors' functions run here: they must reach the state store.
resource "aws_security_group" "doors" {
  #checkov:skip=CKV2_AWS_5:the doors module attaches it to its functions
  name_prefix = "${var.name}-doors-"
  description = "Functions of the doors: out only"
  vpc_id      = local.vpc_id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_egress_rule" "doors_https" {
  security_group_id = aws_security_group.doors.id
  description       = "AWS services, webhooks"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_vpc_security_group_egress_rule" "doors_state" {
  security_group_id = aws_security_group.doors.id
  description       = "The state store"
  ip_protocol       = "tcp"
  from_port         = 6379
  to_port           = 6379
  cidr_ipv4         = local.vpc_cidr
}

# What was refused ---------------------------------------------------------------------------------

resource "aws_cloudwatch_log_group" "flow" {
  #checkov:skip=CKV_AWS_338:refused connections are kept for var.log_retention_days, not for a year
  count = local.new

  name              = "/sluice/${var.name}/flow"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.key_arn
}

resource "aws_flow_log" "this" {
  count = local.new

  vpc_id               = aws_vpc.this[0].id
  traffic_type         = "REJECT"
  log_destination_type = "cloud-watch-logs"
  log_destination      = aws_cloudwatch_log_group.flow[0].arn
  iam_role_arn         = aws_iam_role.flow[0].arn
}

data "aws_iam_policy_document" "flow_trust" {
  count = local.new

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["vpc-flow-logs.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "flow" {
  count = local.new

  statement {
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.flow[0].arn}:*"]
  }
}

resource "aws_iam_role" "flow" {
  count = local.new

  name_prefix        = "${var.name}-flow-"
  assume_role_policy = data.aws_iam_policy_document.flow_trust[0].json
}

resource "aws_iam_role_policy" "flow" {
  count = local.new

  name   = "write"
  role   = aws_iam_role.flow[0].id
  policy = data.aws_iam_policy_document.flow[0].json
}
