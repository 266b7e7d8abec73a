variable "name" {
  description = "Name of the deployment."
  type        = string
}

variable "signers" {
  description = "Who signs with a key set of its own: the pools, door and sweeper. Each gets an empty secret."
  type        = set(string)
}
