output "vpc_id" {
  description = "Id of the VPC."
  value       = local.vpc_id
}

output "subnet_ids" {
  description = "Ids of the private subnets."
  value       = local.subnet_ids
}

output "doors_security_group_id" {
  description = "Id of the security group of the doors' functions."
  value       = aws_security_group.doors.id
}
