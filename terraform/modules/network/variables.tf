variable "name" {
  description = "Name of the deployment."
  type        = string
}

variable "existing" {
  description = "A VPC and private subnets that are there already. Null makes new ones."
  type = object({
    vpc_id     = string
    subnet_ids = list(string)
  })
  default = null

  validation {
    condition     = var.existing == null || length(try(var.existing.subnet_ids, [])) >= 2
    error_message = "network.subnet_ids: name private subnets in two availability zones at least; the state store needs both."
  }
}

variable "cidr" {
  description = "Address range of a new VPC, a /16 to /20."
  type        = string

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && tonumber(split("/", var.cidr)[1]) >= 16 && tonumber(split("/", var.cidr)[1]) <= 20
    error_message = "cidr: an IPv4 range between /16 and /20, as 10.40.0.0/16."
  }
}

variable "zone_count" {
  description = "Availability zones of a new VPC."
  type        = number

  validation {
    condition     = var.zone_count >= 2 && var.zone_count <= 4
    error_message = "zone_count: between 2 and 4."
  }
}

variable "nat" {
  description = "How private subnets reach the internet: single (one gateway), per_zone, or none."
  type        = string

  validation {
    condition     = contains(["single", "per_zone", "none"], var.nat)
    error_message = "nat: single, per_zone or none."
  }
}

variable "interface_endpoints" {
  description = "AWS services that are reached without the internet, by the last part of the endpoint's name."
  type        = set(string)
}

variable "key_arn" {
  description = "Key that encrypts the flow logs."
  type        = string
}

variable "log_retention_days" {
  description = "Days that flow logs are kept."
  type        = number
}
