# The data bucket: results, sessions, bodies, models, uploads. The audit bucket is a module of its own, as it outlives this.

data "aws_caller_identity" "current" {}
data "aws_region" "current" {}

# Bucket names are shared by all accounts of the world: account and region make this one ours.
resource "aws_s3_bucket" "data" {
  #checkov:skip=CKV_AWS_18:who asked for what is in the audit; CloudTrail data events see direct access
  #checkov:skip=CKV_AWS_144:replication to another region is the deployment's own choice
  bucket        = "${var.name}-data-${data.aws_caller_identity.current.account_id}-${data.aws_region.current.region}"
  force_destroy = var.destroy_with_content
}

resource "aws_s3_bucket_public_access_block" "data" {
  bucket = aws_s3_bucket.data.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "data" {
  bucket = aws_s3_bucket.data.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_versioning" "data" {
  bucket = aws_s3_bucket.data.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "data" {
  bucket = aws_s3_bucket.data.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = var.key_arn
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "data" {
  bucket = aws_s3_bucket.data.id

  rule {
    id     = "unfinished-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }
  }

  rule {
    id     = "bodies"
    status = "Enabled"

    filter {
      prefix = var.bodies_prefix
    }

    expiration {
      days = var.bodies_days
    }
  }

  rule {
    id     = "replaced"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = 30
    }
  }

  depends_on = [aws_s3_bucket_versioning.data]
}

data "aws_iam_policy_document" "data" {
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"]
    resources = [aws_s3_bucket.data.arn, "${aws_s3_bucket.data.arn}/*"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "data" {
  bucket = aws_s3_bucket.data.id
  policy = data.aws_iam_policy_document.data.json

  depends_on = [aws_s3_bucket_public_access_block.data]
}

resource "aws_s3_bucket_notification" "uploads" {
  bucket = aws_s3_bucket.data.id

  queue {
    id            = "uploads"
    queue_arn     = var.uploads_queue_arn
    events        = ["s3:ObjectCreated:*"]
    filter_prefix = var.uploads_prefix
  }
}
