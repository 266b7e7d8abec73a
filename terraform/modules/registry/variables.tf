variable "name" {
  description = "Name of the deployment."
  type        = string
}

variable "images" {
  description = "Images of the workers."
  type        = set(string)
}

variable "keep" {
  description = "How many images of each repository are kept."
  type        = number

  validation {
    condition     = var.keep >= 2
    error_message = "keep: 2 at least, or there is nothing to roll back to."
  }
}

variable "key_arn" {
  description = "Key that encrypts the images."
  type        = string
}

variable "destroy_with_content" {
  description = "Whether `terraform destroy` deletes repositories that hold images."
  type        = bool
}
