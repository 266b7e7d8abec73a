output "url_secret" {
  description = "ARN and name of the secret with the rediss:// URL."
  value       = { arn = aws_secretsmanager_secret.url.arn, name = aws_secretsmanager_secret.url.name }
}

output "host" {
  description = "Where the store is."
  value       = aws_elasticache_replication_group.this.configuration_endpoint_address
}

output "node_ids" {
  description = "Ids of the nodes, for alarms."
  value       = [for number in range(1, var.replicas + 2) : format("%s-0001-%03d", local.group_id, number)]
}
