variable "name" {
  description = "Name of the deployment."
  type        = string
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "cluster" {
  description = "Name of the EKS cluster. It needs the add-on eks-pod-identity-agent, and an engine for network policies."
  type        = string
}

variable "install_keda" {
  description = "False where the cluster has KEDA already: then give its operator the role that the output `keda` names."
  type        = bool
  default     = true
}
