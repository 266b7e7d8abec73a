# Everything, from nothing: terraform apply -var name=acme -var region=eu-central-1

provider "aws" {
  region = var.region

  access_key                  = var.endpoint == null ? null : "test"
  secret_key                  = var.endpoint == null ? null : "test"
  skip_credentials_validation = var.endpoint != null
  skip_metadata_api_check     = var.endpoint == null ? null : "true"
  skip_requesting_account_id  = false
  s3_use_path_style           = var.endpoint != null

  endpoints {
    apigateway     = var.endpoint
    cloudwatch     = var.endpoint
    ec2            = var.endpoint
    ecr            = var.endpoint
    eks            = var.endpoint
    elasticache    = var.endpoint
    iam            = var.endpoint
    kms            = var.endpoint
    lambda         = var.endpoint
    logs           = var.endpoint
    s3             = var.endpoint
    scheduler      = var.endpoint
    secretsmanager = var.endpoint
    sns            = var.endpoint
    sqs            = var.endpoint
    sts            = var.endpoint
    wafv2          = var.endpoint
  }

  default_tags {
    tags = { application = "sluice", deployment = var.name }
  }
}

provider "helm" {
  kubernetes = {
    host                   = try(module.sluice.cluster.endpoint, null)
    cluster_ca_certificate = try(base64decode(module.sluice.cluster.certificate_authority), null)

    exec = {
      api_version = "client.authentication.k8s.io/v1beta1"
      command     = "aws"
      args        = ["eks", "get-token", "--region", var.region, "--cluster-name", coalesce(var.cluster, var.name)]
    }
  }
}

module "sluice" {
  source = "../.."

  name          = var.name
  region        = var.region
  cluster       = var.cluster
  with_cluster  = var.endpoint == null
  alert_emails  = var.alert_emails
  pipeline_file = var.pipeline_file
  handlers      = { zip = var.handlers_zip }
}
