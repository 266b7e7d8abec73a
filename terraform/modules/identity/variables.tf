variable "name" {
  description = "Name of the deployment."
  type        = string
}

variable "cluster" {
  description = "Name and ARN of the cluster that pools run in. Null where there is none."
  type        = object({ name = string, arn = string })
  default     = null
}

variable "namespace" {
  description = "Kubernetes namespace of the workers."
  type        = string
}

variable "keda_service_account" {
  description = "Namespace and name of the service account of KEDA's operator."
  type        = object({ namespace = string, service_account = string })
}

variable "associate_keda" {
  description = "Whether KEDA's operator is given its role here. False where KEDA was there before, and may have one."
  type        = bool
}

variable "pools" {
  description = "The pools, from the settings module."
  type = map(object({
    agent           = string
    queues          = object({ normal = string, high = string })
    kubernetes_name = string
  }))
}

variable "pool_names" {
  description = "The intent pool, that of callbacks, and the agent type that plans."
  type        = object({ intent = string, callbacks = string, planner = string })
}

variable "queues" {
  description = "The queues that belong to no pool, by use."
  type        = object({ dead_letters = string, quarantine = string, uploads = string, events = string })
}

variable "queue_arns" {
  description = "ARN of each queue, by its name in tasks/keys."
  type        = map(string)
}

variable "prefixes" {
  description = "Prefixes of objects, by use, from the settings module."
  type        = map(string)
}

variable "data_bucket_arn" {
  description = "ARN of the data bucket."
  type        = string
}

variable "audit_bucket_arn" {
  description = "ARN of the audit bucket."
  type        = string
}

variable "key_arns" {
  description = "ARNs of the keys: data, audit, sealing."
  type        = object({ data = string, audit = string, sealing = string })
}

variable "signing_secret_arns" {
  description = "ARN of the secret with the key set of each signer."
  type        = map(string)
}

variable "shared_secret_arns" {
  description = "ARNs of the secrets that every process reads: public ring, URL of the state store, key of commitments."
  type        = list(string)
}

variable "callback_secret_arn" {
  description = "ARN of the secret that callbacks are signed with."
  type        = string
}

variable "model_secret_arn" {
  description = "ARN of the secret with the language model's key."
  type        = string
}

variable "topic_arn" {
  description = "ARN of the topic that alerts go to."
  type        = string
}

variable "log_group_arns" {
  description = "ARN of the log group of each function."
  type        = map(string)
}
