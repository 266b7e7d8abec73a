# The three that matter ------------------------------------------------------------------------------

variable "name" {
  description = "Name of the deployment. It stands in front of everything that is made."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "name: 3 to 20 lower-case letters, digits and hyphens, a letter first; bucket names have no room for more."
  }
}

variable "region" {
  description = "AWS region. The provider must be configured for the same one."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region: as eu-central-1."
  }
}

variable "cluster" {
  description = "Name of an EKS cluster to use. Null makes a new one."
  type        = string
  default     = null

  validation {
    condition     = var.cluster == null || can(regex("^[0-9A-Za-z][0-9A-Za-z_-]{0,99}$", var.cluster))
    error_message = "cluster: the name of an EKS cluster, not its ARN."
  }
}

# Pipeline and code ------------------------------------------------------------------------------------

variable "pipeline_file" {
  description = "The pipeline.yaml that workers and functions get. Null: the one beside this folder."
  type        = string
  default     = null
}

variable "handlers" {
  description = "The functions' code: path of the zip (null: build/handlers.zip beside this folder) and the processor that it was built for."
  type = object({
    zip          = optional(string)
    architecture = optional(string, "x86_64")
  })
  default = {}
}

variable "functions" {
  description = "Time-out in seconds and memory in MB of each function. Intake queues get six times the time-out as visibility."
  type        = map(object({ timeout = number, memory = number }))
  default = {
    s3    = { timeout = 120, memory = 512 }
    sqs   = { timeout = 30, memory = 512 }
    http  = { timeout = 29, memory = 512 }
    seal  = { timeout = 120, memory = 512 }
    sweep = { timeout = 55, memory = 512 }
  }
}

variable "intake_concurrency" {
  description = "Batches that the function of an intake works on at a time."
  type        = number
  default     = 10
}

variable "http" {
  description = "Limits of the HTTP door, see modules/doors/variables.tf."
  type = object({
    api_key_required = optional(bool, true)
    rate             = optional(number, 500)
    burst            = optional(number, 1000)
    key_rate         = optional(number, 100)
    key_burst        = optional(number, 200)
    address_limit    = optional(number, 10000)
    key_limit        = optional(number, 60000)
    body_bytes       = optional(number, 65536)
  })
  default = {}
}

variable "namespace" {
  description = "Kubernetes namespace of the workers."
  type        = string
  default     = "sluice"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "namespace: up to 63 lower-case letters, digits and hyphens."
  }
}

# Network ------------------------------------------------------------------------------------------------

variable "network" {
  description = "A VPC and private subnets to use. Null: those of the given cluster, or new ones."
  type = object({
    vpc_id     = string
    subnet_ids = list(string)
  })
  default = null
}

variable "new_network" {
  description = "A new VPC: address range, availability zones, how it reaches the internet (single, per_zone or none), services by interface endpoints."
  type = object({
    cidr                = optional(string, "10.40.0.0/16")
    zone_count          = optional(number, 2)
    nat                 = optional(string, "single")
    interface_endpoints = optional(set(string), ["kms", "logs", "secretsmanager", "sqs"])
  })
  default = {}
}

# Cluster ------------------------------------------------------------------------------------------------

variable "with_cluster" {
  description = "False leaves out the cluster and what runs in it: doors, queues and buckets only."
  type        = bool
  default     = true
}

variable "new_cluster" {
  description = "A new cluster: Kubernetes version, addresses that reach its API server, node pools beside the system's."
  type = object({
    kubernetes_version = optional(string, "1.33")
    admin_cidrs        = optional(list(string), ["0.0.0.0/0"])
    node_pools = optional(map(object({
      instance_types = list(string)
      min            = number
      max            = number
      gpu            = optional(bool, false)
      disk_gib       = optional(number, 50)
      })), {
      workers = { instance_types = ["m7i.large", "m6i.large"], min = 0, max = 20 }
      gpu     = { instance_types = ["g5.xlarge", "g4dn.xlarge"], min = 0, max = 4, gpu = true, disk_gib = 100 }
    })
  })
  default = {}
}

variable "keda" {
  description = "Whether KEDA is installed (false where the given cluster has it) and the version of its chart."
  type = object({
    install = optional(bool, true)
    version = optional(string, "2.18.1")
  })
  default = {}
}

# State, storage, images ---------------------------------------------------------------------------------

variable "state" {
  description = "The state store: node type, replicas, and a number to raise for a new password."
  type = object({
    node_type    = optional(string, "cache.m7g.large")
    replicas     = optional(number, 1)
    auth_version = optional(number, 1)
  })
  default = {}
}

variable "bodies_days" {
  description = "Days after which request bodies expire."
  type        = number
  default     = 30
}

variable "images" {
  description = "Images of the workers, each with a repository."
  type        = set(string)
  default     = ["agent", "intent-cpu", "intent-gpu"]
}

variable "images_kept" {
  description = "How many images of each repository are kept."
  type        = number
  default     = 20
}

variable "destroy_with_content" {
  description = "Whether `terraform destroy` deletes the data bucket and the image repositories although there is something in them. Never the audit."
  type        = bool
  default     = false
}

# Who is told --------------------------------------------------------------------------------------------

variable "alert_emails" {
  description = "Addresses that alarms go to. Each must confirm."
  type        = set(string)
  default     = []
}

variable "oldest_seconds" {
  description = "A message that waits longer is an alarm."
  type        = number
  default     = 900
}

variable "log_retention_days" {
  description = "Days that logs are kept. The audit has its own time, auditing.retention_days."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days: one of the numbers that CloudWatch takes, as 30, 90, 180 or 365."
  }
}
