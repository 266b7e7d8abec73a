# The register's store: ElastiCache for Valkey 9 with synchronous durability. What it acknowledged lies in two availability
# zones. One shard is enough, as all keys share a hash tag.

locals {
  port     = 6379
  group_id = "${var.name}-state"
}

resource "aws_elasticache_subnet_group" "this" {
  name        = local.group_id
  description = "${var.name}: private subnets"
  subnet_ids  = var.subnet_ids
}

# Nothing may be evicted: a full store refuses writes, and the alarm on its memory comes before.
resource "aws_elasticache_parameter_group" "this" {
  name        = local.group_id
  description = "${var.name}: cluster mode, nothing is evicted"
  family      = "valkey9"

  parameter {
    name  = "cluster-enabled"
    value = "yes"
  }

  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_elasticache_replication_group" "this" {
  #checkov:skip=CKV_AWS_31:the password is auth_token_wo, which the scanner does not know
  replication_group_id = local.group_id
  description          = "${var.name}: register, locks, quotas"

  engine               = "valkey"
  engine_version       = "9.0"
  durability           = "sync"
  node_type            = var.node_type
  port                 = local.port
  parameter_group_name = aws_elasticache_parameter_group.this.name

  cluster_mode               = "enabled"
  num_node_groups            = 1
  replicas_per_node_group    = var.replicas
  automatic_failover_enabled = true
  multi_az_enabled           = true

  subnet_group_name          = aws_elasticache_subnet_group.this.name
  security_group_ids         = [aws_security_group.this.id]
  transit_encryption_enabled = true
  at_rest_encryption_enabled = true
  kms_key_id                 = var.key_arn
  auth_token_wo              = ephemeral.aws_secretsmanager_secret_version.password.secret_string
  auth_token_wo_version      = var.auth_version

  auto_minor_version_upgrade = true
  snapshot_retention_limit   = 7
}

# The password ---------------------------------------------------------------------------------------
# Made while Terraform runs, written to Secrets Manager, read back from there: it is in no state and no plan. An apply that
# broke off goes on with the same password.

ephemeral "aws_secretsmanager_random_password" "this" {
  password_length     = 48
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "password" {
  #checkov:skip=CKV2_AWS_57:rotated with state_auth_version, as store and clients must change together
  name                    = "${var.name}/state-password"
  description             = "Password of the state store"
  kms_key_id              = var.key_arn
  recovery_window_in_days = 7
}

resource "aws_secretsmanager_secret_version" "password" {
  secret_id                = aws_secretsmanager_secret.password.id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.this.random_password
  secret_string_wo_version = var.auth_version
}

ephemeral "aws_secretsmanager_secret_version" "password" {
  secret_id  = aws_secretsmanager_secret_version.password.secret_id
  version_id = aws_secretsmanager_secret_version.password.version_id
}

resource "aws_secretsmanager_secret" "url" {
  #checkov:skip=CKV2_AWS_57:rotated with state_auth_version, as store and clients must change together
  name                    = "${var.name}/redis-url"
  description             = "rediss:// URL of the state store, password included"
  kms_key_id              = var.key_arn
  recovery_window_in_days = 7
}

resource "aws_secretsmanager_secret_version" "url" {
  secret_id = aws_secretsmanager_secret.url.id
  secret_string_wo = format(
    "rediss://:%s@%s:%d/0",
    ephemeral.aws_secretsmanager_secret_version.password.secret_string,
    aws_elasticache_replication_group.this.configuration_endpoint_address,
    local.port,
  )
  secret_string_wo_version = var.auth_version
}

# Who may reach it -----------------------------------------------------------------------------------

resource "aws_security_group" "this" {
  name_prefix = "${var.name}-state-"
  description = "The state store: from workers and doors only"
  vpc_id      = var.vpc_id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = var.client_security_group_ids

  security_group_id            = aws_security_group.this.id
  description                  = each.key
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
  referenced_security_group_id = each.value
}
