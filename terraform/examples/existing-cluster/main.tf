# Into a cluster, its VPC and its subnets that are there: terraform apply -var name=acme -var region=eu-central-1 -var cluster=shared

provider "aws" {
  region = var.region

  default_tags {
    tags = { application = "sluice", deployment = var.name }
  }
}

provider "helm" {
  kubernetes = {
    host                   = module.sluice.cluster.endpoint
    cluster_ca_certificate = base64decode(module.sluice.cluster.certificate_authority)

    exec = {
      api_version = "client.authentication.k8s.io/v1beta1"
      command     = "aws"
      args        = ["eks", "get-token", "--region", var.region, "--cluster-name", var.cluster]
    }
  }
}

module "sluice" {
  source = "../.."

  name    = var.name
  region  = var.region
  cluster = var.cluster
  keda    = { install = var.install_keda }
}
