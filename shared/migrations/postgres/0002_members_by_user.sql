-- Finds the conversations of one user.
CREATE INDEX members_by_user ON members (user_id, conversation_id);
