output "url" {
  description = "URL of the HTTP door."
  value       = aws_api_gateway_stage.live.invoke_url
}

output "api_name" {
  description = "Name of the API, for alarms."
  value       = aws_api_gateway_rest_api.this.name
}

output "stage_name" {
  description = "Name of the stage, for alarms."
  value       = aws_api_gateway_stage.live.stage_name
}

output "usage_plan_id" {
  description = "Id of the usage plan that API keys are added to."
  value       = aws_api_gateway_usage_plan.this.id
}

output "function_names" {
  description = "Name of each function."
  value       = { for function, it in aws_lambda_function.this : function => it.function_name }
}

output "log_group_arns" {
  description = "ARN of each function's log group."
  value       = { for function, group in aws_cloudwatch_log_group.function : function => group.arn }
}

output "log_group_names" {
  description = "Name of each function's log group."
  value       = { for function, group in aws_cloudwatch_log_group.function : function => group.name }
}
