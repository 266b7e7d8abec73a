# Where the workers' images lie. Empty after the first apply: `docker push` is a step of its own.

resource "aws_ecr_repository" "this" {
  for_each = var.images

  name                 = "${var.name}/${each.key}"
  image_tag_mutability = "IMMUTABLE"
  force_delete         = var.destroy_with_content

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = var.key_arn
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  for_each = aws_ecr_repository.this

  repository = each.value.name

  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "Keep the newest ${var.keep}"
      selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = var.keep }
      action       = { type = "expire" }
    }]
  })
}
