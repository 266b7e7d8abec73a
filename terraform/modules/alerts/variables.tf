variable "name" {
  description = "Name of the deployment."
  type        = string
}

variable "key_arn" {
  description = "Key that encrypts the topic."
  type        = string
}

variable "emails" {
  description = "Addresses that are told. Each must confirm."
  type        = set(string)
}

variable "terminal_queues" {
  description = "Names in SQS of the queues that nothing consumes: a message there is an alarm."
  type        = set(string)
}

variable "work_queues" {
  description = "Names in SQS of the queues of pools and intakes."
  type        = set(string)
}

variable "oldest_seconds" {
  description = "A message that waits longer is an alarm."
  type        = number

  validation {
    condition     = var.oldest_seconds >= 60
    error_message = "oldest_seconds: 60 at least; SQS reports the age each minute."
  }
}

variable "seal_seconds" {
  description = "auditing.seal_seconds: three times without a checkpoint is an alarm."
  type        = number
}

variable "function_names" {
  description = "Name of each function."
  type        = map(string)
}

variable "log_group_names" {
  description = "Name of each function's log group."
  type        = map(string)
}

variable "api" {
  description = "Name and stage of the API."
  type        = object({ name = string, stage = string })
}

variable "state_nodes" {
  description = "Ids of the nodes of the state store."
  type        = set(string)
}
