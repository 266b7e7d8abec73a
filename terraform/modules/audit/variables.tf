variable "name" {
  description = "Name of the deployment."
  type        = string
}

variable "retention_days" {
  description = "auditing.retention_days. The lock holds one day longer, so a segment is locked until its last day is over."
  type        = number

  validation {
    condition     = var.retention_days >= 1 && var.retention_days <= 36500
    error_message = "retention_days: between 1 and 36500."
  }
}

variable "segments_prefix" {
  description = "Prefix of audit segments. Only these may expire."
  type        = string
}
