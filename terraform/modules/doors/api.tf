# The HTTP door: a REST API, as WAF cannot stand before an HTTP API. One function serves all routes; it checks tokens itself.

locals {
  # Health checks need no key.
  open_paths = ["healthz", "readyz"]
}

resource "aws_api_gateway_rest_api" "this" {
  name                         = var.name
  description                  = "Sluice: requests over HTTP"
  disable_execute_api_endpoint = false
  minimum_compression_size     = "1024"

  endpoint_configuration {
    types = ["REGIONAL"]
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_api_gateway_resource" "any" {
  rest_api_id = aws_api_gateway_rest_api.this.id
  parent_id   = aws_api_gateway_rest_api.this.root_resource_id
  path_part   = "{proxy+}"
}

resource "aws_api_gateway_method" "any" {
  #checkov:skip=CKV2_AWS_53:the function validates what it gets against the contract, and names the field
  rest_api_id      = aws_api_gateway_rest_api.this.id
  resource_id      = aws_api_gateway_resource.any.id
  http_method      = "ANY"
  authorization    = "NONE"
  api_key_required = var.http.api_key_required
}

resource "aws_api_gateway_integration" "any" {
  rest_api_id             = aws_api_gateway_rest_api.this.id
  resource_id             = aws_api_gateway_resource.any.id
  http_method             = aws_api_gateway_method.any.http_method
  type                    = "AWS_PROXY"
  integration_http_method = "POST"
  uri                     = aws_lambda_function.this["http"].invoke_arn
}

resource "aws_api_gateway_resource" "open" {
  for_each = toset(local.open_paths)

  rest_api_id = aws_api_gateway_rest_api.this.id
  parent_id   = aws_api_gateway_rest_api.this.root_resource_id
  path_part   = each.key
}

resource "aws_api_gateway_method" "open" {
  #checkov:skip=CKV_AWS_59:health checks say nothing that a caller may not know
  #checkov:skip=CKV2_AWS_53:they take nothing
  for_each = aws_api_gateway_resource.open

  rest_api_id   = aws_api_gateway_rest_api.this.id
  resource_id   = each.value.id
  http_method   = "GET"
  authorization = "NONE"
}

resource "aws_api_gateway_integration" "open" {
  for_each = aws_api_gateway_method.open

  rest_api_id             = aws_api_gateway_rest_api.this.id
  resource_id             = each.value.resource_id
  http_method             = each.value.http_method
  type                    = "AWS_PROXY"
  integration_http_method = "POST"
  uri                     = aws_lambda_function.this["http"].invoke_arn
}

resource "aws_lambda_permission" "api" {
  statement_id  = "ApiGateway"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.this["http"].function_name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_api_gateway_rest_api.this.execution_arn}/*/*"
}

resource "aws_api_gateway_deployment" "this" {
  rest_api_id = aws_api_gateway_rest_api.this.id

  triggers = {
    routes = sha1(jsonencode([
      aws_api_gateway_method.any, aws_api_gateway_integration.any, aws_api_gateway_method.open, aws_api_gateway_integration.open,
    ]))
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_cloudwatch_log_group" "access" {
  #checkov:skip=CKV_AWS_338:kept for log_retention_days; who asked for what is in the audit bucket
  name              = "/sluice/${var.name}/access"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.key_arn
}

resource "aws_api_gateway_stage" "live" {
  #checkov:skip=CKV2_AWS_77:AWSManagedRulesKnownBadInputsRuleSet is among local.managed of waf.tf
  #checkov:skip=CKV_AWS_120:answers differ by caller and change with time
  #checkov:skip=CKV2_AWS_51:callers are known by token and API key; client certificates are the deployment's own choice
  rest_api_id          = aws_api_gateway_rest_api.this.id
  deployment_id        = aws_api_gateway_deployment.this.id
  stage_name           = "live"
  xray_tracing_enabled = true

  # No header, no query string, no path as the caller wrote it: those may hold secrets.
  access_log_settings {
    destination_arn = aws_cloudwatch_log_group.access.arn
    format = jsonencode({
      time      = "$context.requestTimeEpoch"
      id        = "$context.requestId"
      method    = "$context.httpMethod"
      resource  = "$context.resourcePath"
      status    = "$context.status"
      bytes     = "$context.responseLength"
      took_ms   = "$context.responseLatency"
      address   = "$context.identity.sourceIp"
      key_id    = "$context.identity.apiKeyId"
      waf       = "$context.waf.status"
      exception = "$context.integration.error"
    })
  }

  depends_on = [aws_api_gateway_account.this]
}

resource "aws_api_gateway_method_settings" "all" {
  #checkov:skip=CKV_AWS_225:answers differ by caller and change with time
  #checkov:skip=CKV_AWS_308:nothing is cached
  rest_api_id = aws_api_gateway_rest_api.this.id
  stage_name  = aws_api_gateway_stage.live.stage_name
  method_path = "*/*"

  settings {
    metrics_enabled        = true
    logging_level          = "ERROR"
    data_trace_enabled     = false # it would log whole requests
    throttling_rate_limit  = var.http.rate
    throttling_burst_limit = var.http.burst
  }
}

# Keys themselves are made outside of Terraform, so that none is in the state: see docs/terraform.md.
resource "aws_api_gateway_usage_plan" "this" {
  name        = var.name
  description = "What one API key may ask for"

  api_stages {
    api_id = aws_api_gateway_rest_api.this.id
    stage  = aws_api_gateway_stage.live.stage_name
  }

  throttle_settings {
    rate_limit  = var.http.key_rate
    burst_limit = var.http.key_burst
  }
}

# One for the account and region: it lets API Gateway write logs at all.
resource "aws_api_gateway_account" "this" {
  cloudwatch_role_arn = aws_iam_role.api_logs.arn

  depends_on = [aws_iam_role_policy_attachment.api_logs]
}

data "aws_partition" "current" {}

data "aws_iam_policy_document" "api_logs_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["apigateway.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "api_logs" {
  name               = "${var.name}-api-logs"
  description        = "API Gateway writes its logs"
  assume_role_policy = data.aws_iam_policy_document.api_logs_trust.json
}

# AWS's own policy: API Gateway checks for exactly these permissions when the role is set.
resource "aws_iam_role_policy_attachment" "api_logs" {
  role       = aws_iam_role.api_logs.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs"
}
