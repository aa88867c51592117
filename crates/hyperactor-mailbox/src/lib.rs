//! Envelopes, ports, mailboxes and the MailboxSender contract.
