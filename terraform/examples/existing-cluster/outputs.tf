output "sluice" {
  description = "Everything that the rest reads: terraform output -json | sluice scale render --terraform - --broker sqs --out DIR"
  value       = module.sluice
}
