-- Whose it is what is told: '' for ClusterIssuers, which concern everybody; null where nobody knows any more.
ALTER TABLE deliveries ADD COLUMN namespace TEXT;
UPDATE deliveries SET namespace = CASE collection
    WHEN 'webhooks' THEN (SELECT w.namespace FROM webhooks w WHERE w.id = deliveries.webhook_id)
    ELSE (SELECT coalesce(m.body::json -> 'data' ->> 'namespace',
                          CASE deliveries.collection WHEN 'issuers' THEN '' END)
          FROM messages m WHERE m.id = deliveries.message_id)
    END;

-- What a webhook did not ask for any more when it was still to be sent.
UPDATE deliveries SET state = 'held', next_action_at = NULL, finished_at = created_at
WHERE state IN ('queued', 'pending') AND event_type <> 'webhook.test'
  AND NOT EXISTS (SELECT 1 FROM webhook_subscriptions s
                  WHERE s.webhook_id = deliveries.webhook_id AND s.namespace IN (deliveries.namespace, '*'));
