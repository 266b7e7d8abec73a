output "data_key_arn" {
  description = "ARN of the key that encrypts everything but the audit."
  value       = aws_kms_key.data.arn
}

output "sealing_key_arn" {
  description = "ARN of the key that signs checkpoints."
  value       = aws_kms_key.sealing.arn
}

output "sealing_key_id" {
  description = "Id of the key that signs checkpoints."
  value       = aws_kms_key.sealing.key_id
}

output "signing_secrets" {
  description = "ARN and name of the secret with the key set of each signer."
  value       = { for signer, secret in aws_secretsmanager_secret.signing : signer => { arn = secret.arn, name = secret.name } }
}

output "ring_secret" {
  description = "ARN and name of the secret with the public ring."
  value       = { arn = aws_secretsmanager_secret.ring.arn, name = aws_secretsmanager_secret.ring.name }
}

output "commitment_secret" {
  description = "ARN and name of the secret with the key of commitments."
  value       = { arn = aws_secretsmanager_secret.commitment.arn, name = aws_secretsmanager_secret.commitment.name }
}

output "callback_secret" {
  description = "ARN and name of the secret that callbacks are signed with."
  value       = { arn = aws_secretsmanager_secret.callbacks.arn, name = aws_secretsmanager_secret.callbacks.name }
}

output "model_secret" {
  description = "ARN and name of the secret with the language model's key."
  value       = { arn = aws_secretsmanager_secret.model.arn, name = aws_secretsmanager_secret.model.name }
}
