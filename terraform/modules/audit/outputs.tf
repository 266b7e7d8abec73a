output "bucket" {
  description = "Name of the audit bucket."
  value       = aws_s3_bucket.audit.bucket
}

output "bucket_arn" {
  description = "ARN of the audit bucket."
  value       = aws_s3_bucket.audit.arn
}

output "key_arn" {
  description = "ARN of the key that encrypts the audit."
  value       = aws_kms_key.audit.arn
}
