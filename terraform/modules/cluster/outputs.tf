output "name" {
  description = "Name of the cluster."
  value       = local.name
}

output "arn" {
  description = "ARN of the cluster."
  value       = local.arn
}

output "endpoint" {
  description = "URL of the API server."
  value       = local.new == 1 ? aws_eks_cluster.this[0].endpoint : data.aws_eks_cluster.existing[0].endpoint
}

output "certificate_authority" {
  description = "Certificate authority of the API server, in base64."
  value       = local.new == 1 ? aws_eks_cluster.this[0].certificate_authority[0].data : data.aws_eks_cluster.existing[0].certificate_authority[0].data
}

output "security_group_id" {
  description = "Security group of the nodes."
  value       = local.new == 1 ? aws_eks_cluster.this[0].vpc_config[0].cluster_security_group_id : data.aws_eks_cluster.existing[0].vpc_config[0].cluster_security_group_id
}

output "keda_service_account" {
  description = "Namespace and name of the service account that KEDA's operator runs as."
  value       = local.keda
}
