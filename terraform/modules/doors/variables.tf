variable "name" {
  description = "Name of the deployment."
  type        = string
}

variable "zip" {
  description = "The functions' code, which `make handlers-zip` builds."
  type        = string

  validation {
    condition     = fileexists(var.zip)
    error_message = "handlers.zip: there is no such file. Build it first: make handlers-zip."
  }
}

variable "architecture" {
  description = "Processor that the zip was built for: x86_64 or arm64."
  type        = string

  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "handlers.architecture: x86_64 or arm64."
  }
}

variable "functions" {
  description = "Time-out in seconds and memory in MB of each function: s3, sqs, http, seal, sweep."
  type        = map(object({ timeout = number, memory = number }))

  validation {
    condition     = toset(keys(var.functions)) == toset(["http", "s3", "seal", "sqs", "sweep"])
    error_message = "functions: exactly http, s3, seal, sqs and sweep."
  }

  validation {
    condition     = alltrue([for it in values(var.functions) : it.timeout >= 1 && it.timeout <= 900]) && var.functions["http"].timeout <= 29
    error_message = "functions: time-outs are between 1 and 900 seconds; http at most 29, as API Gateway waits no longer."
  }
}

variable "role_arns" {
  description = "ARN of the role of each function."
  type        = map(string)
}

variable "environment" {
  description = "Environment variables of each function."
  type        = map(map(string))
}

variable "intake_arns" {
  description = "ARN of the queue that a function reads, by function."
  type        = map(string)
}

variable "intake_concurrency" {
  description = "Batches that a function of an intake works on at a time."
  type        = number

  validation {
    condition     = var.intake_concurrency >= 2 && var.intake_concurrency <= 1000
    error_message = "intake_concurrency: between 2 and 1000."
  }
}

variable "seal_seconds" {
  description = "auditing.seal_seconds: the sealer runs as often, in whole minutes."
  type        = number
}

variable "subnet_ids" {
  description = "Private subnets of the functions."
  type        = list(string)
}

variable "security_group_id" {
  description = "Security group of the functions."
  type        = string
}

variable "key_arn" {
  description = "Key that encrypts environment variables and logs."
  type        = string
}

variable "log_retention_days" {
  description = "Days that logs are kept."
  type        = number
}

variable "http" {
  description = "The HTTP door: whether callers need an API key beside their token; requests per second and burst of all callers and of one key; requests in five minutes from one address and with one key; bytes of a body."
  type = object({
    api_key_required = bool
    rate             = number
    burst            = number
    key_rate         = number
    key_burst        = number
    address_limit    = number
    key_limit        = number
    body_bytes       = number
  })

  validation {
    condition     = var.http.address_limit >= 10 && var.http.key_limit >= 10
    error_message = "http.address_limit, http.key_limit: 10 at least, the least that WAF counts."
  }

  validation {
    condition     = var.http.body_bytes >= 8192 && var.http.body_bytes <= 65536
    error_message = "http.body_bytes: between 8192 and 65536, the most that WAF looks at. Longer texts come as attachments."
  }
}
