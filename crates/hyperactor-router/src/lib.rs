//! Envelopes over channels: MailboxClient, MailboxServer, MailboxRouter and DialMailboxRouter.
