data "aws_region" "current" {}

locals {
  # Each: title, and its metrics as CloudWatch writes them.
  widgets = {
    "1 Waiting"           = [for queue in sort(var.work_queues) : ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", queue]]
    "2 In flight"         = [for queue in sort(var.work_queues) : ["AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "QueueName", queue]]
    "3 Oldest, seconds"   = [for queue in sort(var.work_queues) : ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", queue]]
    "4 Dead letters"      = [for queue in sort(var.terminal_queues) : ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", queue]]
    "5 HTTP"              = [for metric in ["Count", "4XXError", "5XXError"] : ["AWS/ApiGateway", metric, "ApiName", var.api.name, "Stage", var.api.stage]]
    "6 Functions' errors" = [for function in sort(values(var.function_names)) : ["AWS/Lambda", "Errors", "FunctionName", function]]
    "7 State, memory %"   = [for node in sort(var.state_nodes) : ["AWS/ElastiCache", "DatabaseMemoryUsagePercentage", "CacheClusterId", node]]
    "8 Violations"        = [[local.metrics, "PermissionViolations"]]
  }
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name

  dashboard_body = jsonencode({
    widgets = [
      for title, metrics in local.widgets : {
        type   = "metric"
        width  = 12
        height = 6
        properties = {
          title   = substr(title, 2, -1)
          region  = data.aws_region.current.region
          view    = "timeSeries"
          period  = 60
          stat    = startswith(title, "5") || startswith(title, "6") || startswith(title, "8") ? "Sum" : "Maximum"
          metrics = metrics
        }
      }
    ]
  })
}
