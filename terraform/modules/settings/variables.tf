variable "name" {
  description = "Name of the deployment. It stands in front of every queue's name."
  type        = string
}

variable "pipeline_file" {
  description = "Path of the pipeline.yaml that workers and handlers read too."
  type        = string

  validation {
    condition     = fileexists(var.pipeline_file)
    error_message = "pipeline_file: there is no such file. Name the pipeline.yaml that the workers get."
  }
}
