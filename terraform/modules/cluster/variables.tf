variable "name" {
  description = "Name of the deployment, and of a new cluster."
  type        = string
}

variable "existing" {
  description = "Name of an EKS cluster that is there already. Null makes a new one."
  type        = string
  default     = null
}

variable "kubernetes_version" {
  description = "Kubernetes version of a new cluster."
  type        = string

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "kubernetes_version: as 1.33."
  }
}

variable "subnet_ids" {
  description = "Private subnets of the nodes."
  type        = list(string)
}

variable "admin_cidrs" {
  description = "Addresses that may reach the API server of a new cluster from outside the VPC. Empty: none."
  type        = list(string)
}

variable "node_pools" {
  description = "Node groups of a new cluster, beside the system's: instance types, sizes, whether they have GPUs. All begin at min."
  type = map(object({
    instance_types = list(string)
    min            = number
    max            = number
    gpu            = optional(bool, false)
    disk_gib       = optional(number, 50)
  }))

  validation {
    condition     = alltrue([for pool in var.node_pools : pool.min >= 0 && pool.max >= max(pool.min, 1)])
    error_message = "node_pools: min is 0 or more, max at least 1 and at least min."
  }
}

variable "keda_version" {
  description = "Version of the KEDA chart."
  type        = string
}

variable "install_keda" {
  description = "Whether KEDA is installed. False where the existing cluster has it."
  type        = bool
}

variable "key_arn" {
  description = "Key that encrypts Kubernetes secrets, logs and disks."
  type        = string
}

variable "log_retention_days" {
  description = "Days that the control plane's logs are kept."
  type        = number
}
