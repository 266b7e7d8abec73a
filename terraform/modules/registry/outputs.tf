output "urls" {
  description = "URL of the repository of each image."
  value       = { for image, repository in aws_ecr_repository.this : image => repository.repository_url }
}
