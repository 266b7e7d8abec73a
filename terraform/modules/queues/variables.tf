variable "names" {
  description = "Name in SQS of each queue of tasks/keys."
  type        = map(string)
}

variable "pools" {
  description = "The two queues of each pool, from the settings module."
  type        = map(object({ normal = string, high = string }))
}

variable "dead_letters" {
  description = "The queue of what used up its attempts, as tasks/keys calls it."
  type        = string
}

variable "quarantine" {
  description = "The queue of what no door wrote, as tasks/keys calls it."
  type        = string
}

variable "intakes" {
  description = "Queues that a function of the doors reads, with the time-out of that function in seconds."
  type        = map(number)
}

variable "uploads" {
  description = "The intake that the data bucket's notices go to."
  type        = string
}

variable "visibility_seconds" {
  description = "queue.visibility_seconds: how long a message stays in flight without a heartbeat."
  type        = number
}

variable "attempts" {
  description = "queue.attempts: a message that is received more often is a dead letter."
  type        = number
}

variable "retention_days" {
  description = "Days that a message may wait. SQS keeps 14 at most."
  type        = number

  validation {
    condition     = var.retention_days >= 1 && var.retention_days <= 14
    error_message = "retention_days: between 1 and 14, the most that SQS keeps."
  }
}

variable "data_bucket_arn" {
  description = "The bucket that may send notices of uploads."
  type        = string
}

variable "key_arn" {
  description = "Key that encrypts messages."
  type        = string
}
