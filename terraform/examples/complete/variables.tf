variable "name" {
  description = "Name of the deployment."
  type        = string
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "cluster" {
  description = "Name of an EKS cluster to use. Null makes a new one."
  type        = string
  default     = null
}

variable "alert_emails" {
  description = "Addresses that alarms go to."
  type        = set(string)
  default     = []
}

variable "endpoint" {
  description = "URL of a stand-in for AWS, for tests: `make terraform-validate`. It has no cluster."
  type        = string
  default     = null

  validation {
    condition     = var.endpoint == null || can(regex("^http://(127\\.0\\.0\\.1|localhost):[0-9]+$", var.endpoint))
    error_message = "endpoint: http://127.0.0.1:PORT; it is for tests on this machine only."
  }
}

variable "handlers_zip" {
  description = "Path of the functions' code. Null: build/handlers.zip of this repository."
  type        = string
  default     = null
}

variable "pipeline_file" {
  description = "Path of pipeline.yaml. Null: that of this repository."
  type        = string
  default     = null
}
