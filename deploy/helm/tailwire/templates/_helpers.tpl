{{- define "tailwire.selector" -}}
app.kubernetes.io/name: tailwire
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "tailwire.labels" -}}
{{ include "tailwire.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
