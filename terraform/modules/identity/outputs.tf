output "pool_role_arns" {
  description = "ARN of each pool's role."
  value       = { for pool, role in aws_iam_role.pool : pool => role.arn }
}

output "service_accounts" {
  description = "Kubernetes service account of each pool."
  value       = local.service_accounts
}

output "keda_role_arn" {
  description = "ARN of the role of KEDA's operator, or null."
  value       = one(aws_iam_role.keda[*].arn)
}

# A function must not start before its role may do anything.
output "function_role_arns" {
  description = "ARN of each function's role."
  value       = { for function, role in aws_iam_role.function : function => role.arn }
  depends_on  = [aws_iam_role_policy.function]
}
