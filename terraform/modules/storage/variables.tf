variable "name" {
  description = "Name of the deployment."
  type        = string
}

variable "key_arn" {
  description = "Key that encrypts the data bucket."
  type        = string
}

variable "bodies_prefix" {
  description = "Prefix of request bodies."
  type        = string
}

variable "uploads_prefix" {
  description = "Prefix under which an object that appears becomes requests."
  type        = string
}

variable "bodies_days" {
  description = "Days after which request bodies expire. Longer than any request may take."
  type        = number

  validation {
    condition     = var.bodies_days >= 15
    error_message = "bodies_days: 15 at least: a message may wait 14 days for its body."
  }
}

variable "destroy_with_content" {
  description = "Whether `terraform destroy` deletes results and sessions too."
  type        = bool
}

variable "uploads_queue_arn" {
  description = "Queue that takes notices of uploads."
  type        = string
}
