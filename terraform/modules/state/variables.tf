variable "name" {
  description = "Name of the deployment."
  type        = string
}

variable "vpc_id" {
  description = "VPC of the store."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets, in two availability zones at least."
  type        = list(string)
}

variable "client_security_group_ids" {
  description = "Security groups that may reach the store, by who they are."
  type        = map(string)
}

variable "node_type" {
  description = "Node type. Durability needs the families M6g, M7g, R6g, R7g or C7gn."
  type        = string

  validation {
    condition     = can(regex("^cache\\.(m6g|m7g|m8g|r6g|r7g|r8g|c7gn|c8gn)\\.", var.node_type))
    error_message = "node_type: cache.m7g.large for instance; ElastiCache keeps what it acknowledged only on M6g, M7g, M8g, R6g, R7g, R8g, C7gn and C8gn."
  }
}

variable "replicas" {
  description = "Replicas in other availability zones."
  type        = number

  validation {
    condition     = var.replicas >= 1 && var.replicas <= 5
    error_message = "replicas: between 1 and 5; durability needs one at least."
  }
}

variable "auth_version" {
  description = "Raise it to have a new password made and given to the store and its clients."
  type        = number
}

variable "key_arn" {
  description = "Key that encrypts the store and its secrets."
  type        = string
}
