output "arns" {
  description = "ARN of each queue, by its name in tasks/keys."
  value       = { for queue, it in local.queues : queue => it.arn }
}

output "urls" {
  description = "URL of each queue, by its name in tasks/keys."
  value       = { for queue, it in local.queues : queue => it.url }
}

output "names" {
  description = "Name in SQS of each queue, by its name in tasks/keys."
  value       = { for queue, it in local.queues : queue => it.name }
}

# Whoever waits for this waits until the queue takes notices of uploads.
output "uploads_arn" {
  description = "ARN of the queue that takes notices of uploads, once its policy allows that."
  value       = local.queues[var.uploads].arn
  depends_on  = [aws_sqs_queue_policy.this]
}
